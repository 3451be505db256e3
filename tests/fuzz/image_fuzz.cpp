#include "backend/error.h"
#include "vision/image.h"

/// Any bytes either decode or throw Error, as a picture and as a carrier of PNG text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const auto bytes = std::as_bytes(std::span<const uint8_t>(data, size));
    try {
        fovea::decode_image(bytes, "fuzz");
    } catch (const fovea::Error&) {
    }
    try {
        fovea::parse_png_text(bytes, "fuzz");
    } catch (const fovea::Error&) {
    }
    return 0;
}
