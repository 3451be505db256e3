# find_package(fovea) gives fovea::fovea. Headers keep their folders: #include "backend/tensor.h".

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(fovea_fovea INTERFACE)
target_link_libraries(fovea_fovea INTERFACE fovea_pipelines)
set_target_properties(fovea_fovea PROPERTIES EXPORT_NAME fovea)
add_library(fovea::fovea ALIAS fovea_fovea)

install(TARGETS fovea_backend fovea_vision fovea_pipelines fovea_fovea EXPORT fovea)
if(TARGET fovea)
    install(TARGETS fovea)
endif()
foreach(folder backend vision pipelines shaders)
    install(DIRECTORY ${folder} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/fovea
            FILES_MATCHING PATTERN "*.h")
endforeach()
install(DIRECTORY assets/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fovea OPTIONAL)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/fovea)
install(EXPORT fovea NAMESPACE fovea:: FILE foveaTargets.cmake DESTINATION ${package})
file(CONFIGURE OUTPUT foveaConfig.cmake CONTENT [[
include(CMakeFindDependencyMacro)
find_dependency(fmt)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/foveaTargets.cmake)
]] @ONLY)
write_basic_package_version_file(foveaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/foveaConfig.cmake ${PROJECT_BINARY_DIR}/foveaConfigVersion.cmake
        DESTINATION ${package})
