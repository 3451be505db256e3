extern "C" {
#include <libavutil/mem.h>
#include <libavutil/sha.h>
}

#include <array>
#include <cstdint>
#include <fstream>
#include <memory>

#include "vision/file.h"

namespace fovea {
namespace {

/// The algorithm of libavutil, which videos need anyway.
class Sha256 {
  public:
    Sha256() : state_(av_sha_alloc(), av_free) {
        require(state_ != nullptr, "[file] out of memory for a hash");
        av_sha_init(state_.get(), 256);
    }
    void add(const char* bytes, size_t count) {
        av_sha_update(state_.get(), reinterpret_cast<const uint8_t*>(bytes), count);
    }
    std::string hex() {
        std::array<uint8_t, 32> digest{};
        av_sha_final(state_.get(), digest.data());
        std::string text;
        for (const uint8_t byte : digest) text += fmt::format("{:02x}", byte);
        return text;
    }

  private:
    std::unique_ptr<AVSHA, void (*)(void*)> state_;
};

}  // namespace

std::string sha256_of_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    require(file.good(), "[file] cannot open {}", path.string());
    Sha256 hash;
    std::vector<char> block(1 << 16);
    while (file) {
        file.read(block.data(), static_cast<std::streamsize>(block.size()));
        hash.add(block.data(), static_cast<size_t>(file.gcount()));
    }
    require(!file.bad(), "[file] cannot read {}", path.string());
    return hash.hex();
}

std::string sha256(std::string_view bytes) {
    Sha256 hash;
    hash.add(bytes.data(), bytes.size());
    return hash.hex();
}

}  // namespace fovea
