# fovea_embed_tuning(): assets/tuning/*.json, files of `fovea tune`, as kTuningTables of the
# generated tuning_tables.h, so that an installed library needs no path to them.
function(fovea_embed_tuning)
    file(GLOB tables CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/assets/tuning/*.json)
    set(texts)
    foreach(table ${tables})
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${table})
        file(READ ${table} text)
        string(APPEND texts "    R\"json(${text})json\",\n")
    endforeach()
    file(CONFIGURE OUTPUT ${FOVEA_GENERATED_DIR}/tuning_tables.h CONTENT [[
#pragma once

namespace fovea {
constexpr const char* kTuningTables[] = {
@texts@};
}  // namespace fovea
]] @ONLY)
endfunction()
