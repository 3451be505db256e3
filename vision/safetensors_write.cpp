#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "backend/half.h"
#include "vision/file.h"
#include "vision/weights.h"

namespace fovea {

namespace {

template <typename T>
void append(std::vector<std::byte>& out, T value) {
    const size_t at = out.size();
    out.resize(at + sizeof(T));
    std::memcpy(out.data() + at, &value, sizeof(T));
}

void append_values(std::vector<std::byte>& out, const NamedTensor& tensor) {
    for (const float value : tensor.values) {
        if (tensor.type == StoredType::F32) {
            append(out, value);
        } else if (tensor.type == StoredType::F16) {
            append(out, float_to_half(value));
        } else {
            require(
                value >= 0 && value <= 255 && value == std::floor(value),
                "[write_safetensors] tensor {}: expected whole numbers 0 to 255 for U8, found {}",
                tensor.name, value);
            append(out, static_cast<uint8_t>(value));
        }
    }
}

void check(const NamedTensor& tensor) {
    require(tensor.type == StoredType::F32 || tensor.type == StoredType::F16 ||
                tensor.type == StoredType::U8,
            "[write_safetensors] tensor {}: expected F32, F16 or U8, found {}", tensor.name,
            type_name(tensor.type));
    require(tensor.name != "__metadata__", "[write_safetensors] __metadata__ cannot name a tensor");
    size_t count = 1;
    bool fits = true;
    for (const int64_t length : tensor.shape)
        fits = fits && length >= 0 && !__builtin_mul_overflow(count, length, &count);
    require(fits && count == tensor.values.size(),
            "[write_safetensors] tensor {}: expected as many values as shape {} has, found {}",
            tensor.name, shape_text(tensor.shape), tensor.values.size());
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
    // Wide elements first keeps every tensor aligned to its element size.
    std::vector<const NamedTensor*> order;
    for (const NamedTensor& tensor : tensors) {
        check(tensor);
        order.push_back(&tensor);
    }
    std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
        const size_t wide_a = byte_size(a->type), wide_b = byte_size(b->type);
        return wide_a != wide_b ? wide_a > wide_b : a->name < b->name;
    });

    nlohmann::json header = nlohmann::json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::vector<std::byte> data;
    for (const NamedTensor* tensor : order) {
        require(!header.contains(tensor->name), "[write_safetensors] two tensors are named {}",
                tensor->name);
        const size_t begin = data.size();
        append_values(data, *tensor);
        header[tensor->name] = {{"dtype", type_name(tensor->type)},
                                {"shape", tensor->shape},
                                {"data_offsets", {begin, data.size()}}};
    }

    std::string text;
    try {
        text = header.dump();
    } catch (const nlohmann::json::exception& error) {
        fail("[write_safetensors] expected UTF-8 in names and metadata: {}", error.what());
    }
    text.resize((text.size() + 7) / 8 * 8, ' ');
    std::vector<std::byte> file;
    file.reserve(8 + text.size() + data.size());
    append(file, static_cast<uint64_t>(text.size()));
    const auto* letters = reinterpret_cast<const std::byte*>(text.data());
    file.insert(file.end(), letters, letters + text.size());
    file.insert(file.end(), data.begin(), data.end());
    write_file(path, file);
}

}  // namespace fovea
