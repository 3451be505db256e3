#include "pipelines/model.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>

#include "backend/error.h"
#include "backend/log.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;

constexpr std::array kWeightFiles{"autoencoder.safetensors", "text.safetensors", "dit.safetensors"};

}  // namespace

// FNV-1a over 8-byte words.
std::string hash_files(const fs::path& folder, std::span<const char* const> names) {
    uint64_t hash = 0xcbf29ce484222325u;
    std::vector<char> block(1 << 20);
    for (const char* name : names) {
        std::ifstream file(folder / name, std::ios::binary);
        require(file.good(), "[model] {} is missing from {}", name, folder.string());
        while (file) {
            file.read(block.data(), static_cast<std::streamsize>(block.size()));
            for (std::streamsize i = 0; i < file.gcount(); i += 8) {
                uint64_t word = 0;
                std::memcpy(&word, block.data() + i,
                            static_cast<size_t>(std::min<std::streamsize>(8, file.gcount() - i)));
                hash = (hash ^ word) * 0x100000001b3u;
            }
        }
    }
    return fmt::format("{:016x}", hash);
}

Model Model::load(vk::Stream& stream, const fs::path& folder, DType dtype) {
    const auto open = [&](const char* name) { return Weights::open(folder / name); };
    Model model{.tokenizer = Tokenizer::open(folder / "vocabulary.txt"),
                .text = TextEncoder(stream, open("text.safetensors"), dtype),
                .dit = Dit(stream, open("dit.safetensors"), dtype),
                .autoencoder = Autoencoder(stream, open("autoencoder.safetensors"), dtype),
                .hash = hash_files(folder, kWeightFiles),
                .dtype = dtype};
    const auto& dit = model.dit.config();
    require(dit.text_width == model.text.config().width,
            "[model] {}: the transformer expects text of width {}, the text encoder gives {}",
            folder.string(), dit.text_width, model.text.config().width);
    require(dit.latent_channels == model.autoencoder.latent_channels(),
            "[model] {}: the transformer has {} latent channels, the autoencoder {}",
            folder.string(), dit.latent_channels, model.autoencoder.latent_channels());
    stream.submit();
    log::info("model {} ({})", folder.string(), model.hash);
    return model;
}

fs::path find_model(const std::string& asked) {
    std::vector<fs::path> places;
    if (!asked.empty()) {
        places = {asked};
    } else if (const char* environment = std::getenv("FOVEA_MODEL");
               environment != nullptr && *environment != 0) {
        places = {environment};
    } else {
        std::error_code error;
        const auto program = fs::read_symlink("/proc/self/exe", error);
        if (!error) places.push_back(program.parent_path() / "../share/fovea/default");
        places.push_back(fs::path(FOVEA_ASSETS_DIR) / "default");
    }
    std::string looked;
    for (const auto& place : places) {
        if (fs::exists(place / "dit.safetensors")) return place.lexically_normal();
        looked += (looked.empty() ? "" : ", ") + place.lexically_normal().string();
    }
    fail("[model] no model (dit.safetensors) found; looked in {}. Give a folder with --model",
         looked);
}

DType choose_precision(const vk::DeviceInfo& device, const std::string& asked) {
    if (asked == "fp32") return DType::f32;
    if (asked == "fp16") {
        require(device.fp16_storage,
                "[precision] {} has no 16-bit storage buffers: use --precision fp32", device.name);
        return DType::f16;
    }
    require(asked == "auto", "[precision] \"{}\" found, expected auto, fp16 or fp32", asked);
    return device.fp16_storage && device.type != vk::DeviceType::cpu ? DType::f16 : DType::f32;
}

}  // namespace fovea
