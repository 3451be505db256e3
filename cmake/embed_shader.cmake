# Run by fovea_shader() as a script: the module SPV, or nothing, as the C++ object NAME in file CPP.

set(words)
set(code "{}")
if(SPV)
    file(READ ${SPV} bytes HEX)
    # SPIR-V files are little-endian words here: so are all machines this builds on.
    string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," words "${bytes}")
    set(words "static constexpr uint32_t ${NAME}_words[] = {${words}};")
    set(code ${NAME}_words)
endif()
file(CONFIGURE OUTPUT ${CPP} CONTENT [[
#include "shaders.h"

namespace fovea::shader {
@words@
constinit const vk::Shader @NAME@{.name = "@NAME@", .code = @code@};
}  // namespace fovea::shader
]] @ONLY)
