# fovea_shader(name source.comp [NEEDS extension...] [DEFINES...])
#
# Compiles shaders/source.comp to <build>/shaders/name.spv, validates it and embeds it as
# fovea::shader::name, declared in the generated shaders.h. A module whose extension (for example
# KHR_COOPERATIVE_MATRIX) the compiler lacks is still declared, with empty code, so that C++ can
# say why a path is missing without conditional compilation.

set(FOVEA_SHADERS_OF "" CACHE PATH "Another build of the same sources, whose compiled shaders are taken")
set(FOVEA_SHADER_DIR ${PROJECT_BINARY_DIR}/shaders)
set(FOVEA_GENERATED_DIR ${PROJECT_BINARY_DIR}/generated)

function(fovea_shader name source)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "" NEEDS)
    # Arguments before NEEDS and after its extensions are defines, whichever order they come in.
    set(needs)
    set(defines ${arg_UNPARSED_ARGUMENTS})
    foreach(word ${arg_NEEDS})
        if(DEFINED FOVEA_GLSL_${word})
            list(APPEND needs ${word})
        else()
            list(APPEND defines ${word})
        endif()
    endforeach()
    list(TRANSFORM defines PREPEND -D)

    set_property(GLOBAL APPEND PROPERTY FOVEA_SHADER_NAMES ${name})
    set(cpp ${FOVEA_GENERATED_DIR}/${name}.cpp)
    if(FOVEA_SHADERS_OF)
        set_property(GLOBAL APPEND PROPERTY FOVEA_SHADER_SOURCES ${FOVEA_SHADERS_OF}/generated/${name}.cpp)
        return()
    endif()
    set_property(GLOBAL APPEND PROPERTY FOVEA_SHADER_SOURCES ${cpp})

    set(script ${PROJECT_SOURCE_DIR}/cmake/embed_shader.cmake)
    set(embed ${CMAKE_COMMAND} -D NAME=${name} -D CPP=${cpp})
    foreach(extension ${needs})
        if(NOT FOVEA_GLSL_${extension})
            add_custom_command(OUTPUT ${cpp} COMMAND ${embed} -P ${script} DEPENDS ${script} VERBATIM)
            return()
        endif()
    endforeach()

    set(spv ${FOVEA_SHADER_DIR}/${name}.spv)
    add_custom_command(
        OUTPUT ${spv} ${cpp}
        COMMAND ${GLSLC} -O -Werror --target-env=vulkan1.3 -I ${PROJECT_SOURCE_DIR}/shaders ${defines}
                -MD -MF ${spv}.d -MT ${spv} -o ${spv} ${PROJECT_SOURCE_DIR}/shaders/${source}
        COMMAND ${SPIRV_VAL} --target-env vulkan1.3 ${spv}
        COMMAND ${embed} -D SPV=${spv} -P ${script}
        DEPENDS ${PROJECT_SOURCE_DIR}/shaders/${source} ${script}
        DEPFILE ${spv}.d
        COMMENT "Shader ${name}"
        VERBATIM)
endfunction()

# After the last fovea_shader(): writes shaders.h and makes the modules the target fovea_shaders.
function(fovea_finish_shaders)
    file(MAKE_DIRECTORY ${FOVEA_SHADER_DIR} ${FOVEA_GENERATED_DIR})
    get_property(names GLOBAL PROPERTY FOVEA_SHADER_NAMES)
    get_property(sources GLOBAL PROPERTY FOVEA_SHADER_SOURCES)
    set(declarations)
    foreach(name ${names})
        string(APPEND declarations "extern const vk::Shader ${name};\n")
    endforeach()
    file(CONFIGURE OUTPUT ${FOVEA_GENERATED_DIR}/shaders.h CONTENT [[
#pragma once
// Generated from shaders/CMakeLists.txt.

#include "backend/vk/shader.h"

namespace fovea::shader {
@declarations@
}  // namespace fovea::shader
]] @ONLY)
    if(sources)
        add_library(fovea_shaders OBJECT ${sources})
        target_include_directories(fovea_shaders PRIVATE ${PROJECT_SOURCE_DIR} ${FOVEA_GENERATED_DIR})
    endif()
endfunction()
