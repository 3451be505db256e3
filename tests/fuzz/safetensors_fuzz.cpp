#include <cstdlib>

#include "backend/error.h"
#include "vision/weights.h"

/// Any bytes either parse or throw Error, and what parses is readable to its last value. The first
/// inputs are the files weights_test writes when FOVEA_FUZZ_SEEDS names a folder.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const auto weights =
            fovea::Weights::parse(std::as_bytes(std::span<const uint8_t>(data, size)), "fuzz");
        for (const std::string& name : weights.names()) {
            const fovea::TensorInfo& info = weights.info(name);
            size_t count = 1;
            for (const int64_t length : info.shape) count *= static_cast<size_t>(length);
            if (count * fovea::byte_size(info.type) != info.bytes.size()) std::abort();
            unsigned sum = 0;
            for (const std::byte byte : info.bytes) sum += std::to_integer<unsigned>(byte);
            volatile unsigned read = sum;
            (void)read;
            try {
                if (weights.floats(name, info.shape).size() != count) std::abort();
            } catch (const fovea::Error&) {  // I32, I64, BOOL
            }
        }
    } catch (const fovea::Error&) {
    }
    return 0;
}
