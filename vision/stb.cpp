/// The one place where the stb libraries are compiled.

#include <cstddef>
#include <cstdlib>

namespace {

/// stb inflates whatever a file holds, whatever size its header promises: a few megabytes of zeros
/// can ask for gigabytes. The largest picture admitted needs 512 MiB (64 megapixels of 16-bit
/// RGBA).
constexpr size_t kMaxAllocation = size_t{1} << 30;

/// Zeroed: before 2.28 stb_image uses Huffman tables that a JPEG names but does not hold.
void* limited_malloc(size_t size) {
    return size <= kMaxAllocation ? std::calloc(size, 1) : nullptr;
}
void* limited_realloc(void* memory, size_t size) {
    return size <= kMaxAllocation ? std::realloc(memory, size) : nullptr;
}

}  // namespace

#define STBI_MALLOC(size) limited_malloc(size)
#define STBI_REALLOC(memory, size) limited_realloc(memory, size)
#define STBI_FREE(memory) std::free(memory)
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_RESIZE_IMPLEMENTATION

// Known and harmless by C's practice: memcpy of nothing from nowhere, shifts and sums of damaged
// coefficients.
#ifdef __clang__
#pragma clang attribute push(__attribute__((no_sanitize("undefined"))), apply_to = function)
#endif
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#include <stb_image.h>
#include <stb_image_write.h>
// Version 1 where it is packaged (Debian 12 and 13), so that all of them give the same numbers.
#if __has_include(<stb_image_resize.h>)
#include <stb_image_resize.h>
#else
#include <stb_image_resize2.h>
#endif
#pragma GCC diagnostic pop
#ifdef __clang__
#pragma clang attribute pop
#endif
