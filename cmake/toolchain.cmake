# The shader compiler and the Vulkan headers: those in .deps/ where scripts/setup.sh had to fetch
# them, else the system's.

set(deps ${PROJECT_SOURCE_DIR}/.deps)

# NO_CACHE: .deps/ may appear after a first, failed configuration.
find_program(GLSLC glslc HINTS ${deps}/bin NO_CACHE)
find_program(SPIRV_VAL spirv-val HINTS ${deps}/bin NO_CACHE)
find_path(VULKAN_INCLUDE_DIR vulkan/vulkan_core.h HINTS ${deps}/include NO_CACHE)
find_path(VOLK_INCLUDE_DIR volk.c HINTS ${deps}/include NO_CACHE)
find_path(VMA_INCLUDE_DIR vk_mem_alloc.h HINTS ${deps}/include NO_CACHE)

foreach(variable GLSLC SPIRV_VAL VULKAN_INCLUDE_DIR VOLK_INCLUDE_DIR VMA_INCLUDE_DIR)
    if(NOT ${variable})
        message(FATAL_ERROR "${variable} not found: run scripts/setup.sh")
    endif()
endforeach()

file(STRINGS ${VULKAN_INCLUDE_DIR}/vulkan/vulkan_core.h version
     REGEX "#define VK_HEADER_VERSION(_COMPLETE)? ")
string(REGEX MATCH "VK_HEADER_VERSION ([0-9]+)" _ "${version}")
set(patch ${CMAKE_MATCH_1})
string(REGEX MATCH "MAKE_API_VERSION\\(0, ([0-9]+), ([0-9]+)" _ "${version}")
set(version ${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${patch})
if(version VERSION_LESS 1.4.300)
    message(FATAL_ERROR "Vulkan headers >= 1.4.300 needed, found ${version} in "
                        "${VULKAN_INCLUDE_DIR}: run scripts/setup.sh")
endif()
message(STATUS "Vulkan headers ${version} in ${VULKAN_INCLUDE_DIR}")
message(STATUS "Shader compiler ${GLSLC}")

set(FOVEA_VULKAN_INCLUDE_DIRS ${VULKAN_INCLUDE_DIR} ${VOLK_INCLUDE_DIR} ${VMA_INCLUDE_DIR})
list(REMOVE_DUPLICATES FOVEA_VULKAN_INCLUDE_DIRS)

# Which extensions the shader compiler knows: FOVEA_GLSL_<EXTENSION> is 1 or 0, in CMake and C++.
foreach(extension KHR_COOPERATIVE_MATRIX NV_COOPERATIVE_MATRIX2)
    string(TOLOWER ${extension} file)
    execute_process(
        COMMAND ${GLSLC} --target-env=vulkan1.3 -o ${PROJECT_BINARY_DIR}/CMakeFiles/${file}.spv
                ${PROJECT_SOURCE_DIR}/cmake/feature_tests/${file}.comp
        RESULT_VARIABLE result ERROR_QUIET)
    if(result EQUAL 0)
        set(FOVEA_GLSL_${extension} 1)
    else()
        set(FOVEA_GLSL_${extension} 0)
    endif()
    message(STATUS "Shader compiler knows ${extension}: ${FOVEA_GLSL_${extension}}")
    add_compile_definitions(FOVEA_GLSL_${extension}=${FOVEA_GLSL_${extension}})
endforeach()
