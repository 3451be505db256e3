# The three libraries share their shape: all sources of one folder. A folder that has none yet is an
# INTERFACE library, which the helpers below hide.

# fovea_library(backend): target fovea_backend from backend/**.cpp
function(fovea_library folder)
    file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
    if(sources)
        add_library(fovea_${folder} STATIC ${sources})
        set(scope PUBLIC)
    else()
        add_library(fovea_${folder} INTERFACE)
        set(scope INTERFACE)
    endif()
    target_compile_features(fovea_${folder} ${scope} cxx_std_20)
    if(FOVEA_UNITY AND sources AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
        # takes a source included by another for a header
        target_compile_options(fovea_${folder} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wno-subobject-linkage>)
    endif()
    if(FOVEA_FUZZ AND sources)
        target_compile_options(fovea_${folder} PRIVATE -fsanitize=fuzzer-no-link)
    endif()
    target_include_directories(fovea_${folder} ${scope}
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
        $<INSTALL_INTERFACE:include/fovea>)
endfunction()

function(fovea_has_sources folder result)
    get_target_property(type fovea_${folder} TYPE)
    if(type STREQUAL INTERFACE_LIBRARY)
        set(${result} 0 PARENT_SCOPE)
    else()
        set(${result} 1 PARENT_SCOPE)
    endif()
endfunction()

# fovea_use(vision PUBLIC|PRIVATE libraries...). Private ones stay out of the installed package.
function(fovea_use folder scope)
    fovea_has_sources(${folder} sources)
    set(keyword ${scope})
    if(NOT sources)
        set(keyword INTERFACE)
    endif()
    foreach(library ${ARGN})
        if(scope STREQUAL PRIVATE AND TARGET ${library})
            set(library $<BUILD_INTERFACE:${library}>)
        endif()
        target_link_libraries(fovea_${folder} ${keyword} ${library})
    endforeach()
endfunction()

# fovea_include(vision directories...): third-party headers seen by this library's sources only
function(fovea_include folder)
    fovea_has_sources(${folder} sources)
    if(sources)
        target_include_directories(fovea_${folder} SYSTEM PRIVATE ${ARGN})
    endif()
endfunction()

function(fovea_add_shaders folder)
    fovea_has_sources(${folder} sources)
    if(sources)
        target_include_directories(fovea_${folder} PRIVATE ${FOVEA_GENERATED_DIR})
        if(TARGET fovea_shaders)
            target_sources(fovea_${folder} PRIVATE $<TARGET_OBJECTS:fovea_shaders>)
        endif()
    endif()
endfunction()

# Vulkan is reached through volk alone: no prototypes, no link to the loader.
function(fovea_add_volk folder)
    fovea_has_sources(${folder} sources)
    if(sources)
        target_sources(fovea_${folder} PRIVATE ${VOLK_INCLUDE_DIR}/volk.c)
        set_source_files_properties(${VOLK_INCLUDE_DIR}/volk.c PROPERTIES COMPILE_OPTIONS -w)
        target_compile_definitions(fovea_${folder} PRIVATE VK_NO_PROTOTYPES)
    endif()
endfunction()
