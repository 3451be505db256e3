#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// Model weights in safetensors files: an 8-byte little-endian header length, a JSON header (name
/// -> dtype, shape, byte range), then the data. The file is mapped, so opening costs the header
/// only, and nothing in it is believed: a hostile file ends in an Error, never in a read outside of
/// it. Source: https://huggingface.co/docs/safetensors (format section).
namespace fovea {

/// Element types as stored; arithmetic happens in fp16 or fp32 on the device.
enum class StoredType { F32, F16, BF16, I8, U8, I32, I64, BOOL };

size_t byte_size(StoredType type);
std::string_view type_name(StoredType type);

struct TensorInfo {
    StoredType type = StoredType::F32;
    std::vector<int64_t> shape;  // outermost first; empty for a scalar
    /// Little-endian, row-major; not aligned to the element size. Lives as long as the Weights.
    std::span<const std::byte> bytes;
};

/// "(64, 3, 3, 3)"; an expected dimension of -1 prints as "any".
std::string shape_text(std::span<const int64_t> shape);

/// One opened file. The file must not be shortened while it is open: the system answers a read
/// behind its new end with SIGBUS, as for every mapped file. Writers that rename over it
/// (write_safetensors) are harmless.
class Weights {
  public:
    /// Throws Error naming the file and what is wrong with it.
    static Weights open(const std::filesystem::path& path);
    /// The same checks on bytes in memory, which must outlive the result; `name` stands for the
    /// file in messages.
    static Weights parse(std::span<const std::byte> bytes, std::string name);

    Weights(Weights&&) noexcept;
    Weights& operator=(Weights&&) noexcept;
    ~Weights();

    bool contains(std::string_view tensor) const;
    /// Throws Error naming the file when it has no such tensor.
    const TensorInfo& info(std::string_view tensor) const;
    /// The values as fp32, from F32, F16, BF16, I8 or U8. An expected dimension of -1 matches any
    /// length. Throws Error naming file, tensor, found and expected shape.
    std::vector<float> floats(std::string_view tensor,
                              const std::vector<int64_t>& expected_shape) const;
    /// In alphabetical order.
    std::vector<std::string> names() const;
    const std::map<std::string, std::string>& metadata() const { return metadata_; }

  private:
    struct Mapping;
    Weights();

    std::string file_;
    std::unique_ptr<const Mapping> mapping_;  // empty after parse()
    std::map<std::string, TensorInfo, std::less<>> tensors_;
    std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
    std::string name;
    StoredType type =
        StoredType::F32;  // F32, F16 (rounded to nearest even) or U8 (whole numbers 0 ... 255)
    std::vector<int64_t> shape;
    std::vector<float> values;  // row-major, as many as the shape says
};

/// The opposite of Weights::open; the bytes depend on the arguments
/// only, not on the order of the tensors. Tensors start at multiples of their element size. Atomic:
/// see write_file.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace fovea
