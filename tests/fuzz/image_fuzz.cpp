#include <cstdint>

#include "backend/error.h"
#include "vision/image.h"
#include "vision/jpeg.h"

/// From the stb_image inside the library, whose header this folder does not see.
extern "C" int stbi_info_from_memory(const unsigned char*, int, int*, int*, int*);

/// Any bytes either decode or throw Error, as a picture and as a carrier of PNG text. Large
/// pictures are left out: they take seconds and gigabytes, and run through the same code.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto bytes = std::as_bytes(std::span<const uint8_t>(data, size));
    int width = 0, height = 0, channels = 0;
    if (fovea::huffman_tables_fit(bytes))
        stbi_info_from_memory(data, static_cast<int>(size), &width, &height, &channels);
    try {
        if (int64_t{width} * height < (1 << 20)) fovea::decode_image(bytes, "fuzz");
    } catch (const fovea::Error&) {
    }
    try {
        fovea::parse_png_text(bytes, "fuzz");
    } catch (const fovea::Error&) {
    }
    return 0;
}
