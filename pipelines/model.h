#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "vision/models/autoencoder.h"
#include "vision/models/dit.h"
#include "vision/models/text_encoder.h"
#include "vision/tokenizer.h"

namespace fovea {

/// Everything a picture needs from one model folder (docs/model-format.md), on one device.
struct Model {
    Tokenizer tokenizer;
    TextEncoder text;
    Dit dit;
    Autoencoder autoencoder;
    std::string hash;  ///< of the weight files' bytes, 16 hex digits
    DType dtype;

    static Model load(vk::Stream& stream, const std::filesystem::path& folder, DType dtype);
};

/// 16 hex digits of files' bytes: tells models apart, no defence against forgery. Throws Error for
/// one that is missing.
std::string hash_files(const std::filesystem::path& folder, std::span<const char* const> names);

/// The folder asked for, else FOVEA_MODEL, else the default model beside the program or in its
/// source tree. Throws Error that lists where it looked.
std::filesystem::path find_model(const std::string& asked);

/// fp16 where the device is a GPU that stores it, else fp32. `asked`: "auto", "fp16" or "fp32".
DType choose_precision(const vk::DeviceInfo& device, const std::string& asked);

}  // namespace fovea
