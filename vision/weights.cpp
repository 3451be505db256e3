#include "vision/weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "backend/error.h"
#include "backend/half.h"
#include "vision/safetensors_header.h"

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

namespace fovea {

namespace {

template <typename T, typename Convert>
std::vector<float> convert(std::span<const std::byte> bytes, Convert to_float) {
    std::vector<float> values(bytes.size() / sizeof(T));
    for (size_t i = 0; i < values.size(); ++i) {
        T stored;
        std::memcpy(&stored, bytes.data() + i * sizeof(T), sizeof(T));
        values[i] = to_float(stored);
    }
    return values;
}

bool matches(std::span<const int64_t> shape, std::span<const int64_t> expected) {
    return std::equal(
        shape.begin(), shape.end(), expected.begin(), expected.end(),
        [](int64_t found, int64_t wanted) { return wanted == -1 || found == wanted; });
}

}  // namespace

struct Weights::Mapping {
    std::span<const std::byte> bytes;

    explicit Mapping(const std::filesystem::path& path) {
        // O_NONBLOCK: a named pipe is refused below instead of waiting for its writer.
        const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (file < 0) fail("[weights] cannot open {}: {}", path.string(), std::strerror(errno));
        struct stat status {};
        const bool known = ::fstat(file, &status) == 0;
        const bool regular = known && S_ISREG(status.st_mode);
        const auto size = known ? static_cast<size_t>(status.st_size) : 0;
        void* address = nullptr;
        if (regular && size > 0) address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
        const int error = errno;
        ::close(file);  // the mapping stays
        require(regular, "[weights] expected a safetensors file, found {} to be no regular file",
                path.string());
        require(address != MAP_FAILED, "[weights] cannot map {}: {}", path.string(),
                std::strerror(error));
        if (size > 0) bytes = {static_cast<const std::byte*>(address), size};
    }
    ~Mapping() {
        if (!bytes.empty()) ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
};

Weights::Weights() = default;
Weights::Weights(Weights&&) noexcept = default;
Weights& Weights::operator=(Weights&&) noexcept = default;
Weights::~Weights() = default;

Weights Weights::open(const std::filesystem::path& path) {
    auto mapping = std::make_unique<const Mapping>(path);
    Weights weights = parse(mapping->bytes, path.string());
    weights.mapping_ = std::move(mapping);
    return weights;
}

Weights Weights::parse(std::span<const std::byte> bytes, std::string name) {
    SafetensorsHeader header = parse_safetensors_header(bytes, name);
    Weights weights;
    weights.file_ = std::move(name);
    weights.tensors_ = std::move(header.tensors);
    weights.metadata_ = std::move(header.metadata);
    return weights;
}

bool Weights::contains(std::string_view tensor) const {
    return tensors_.find(tensor) != tensors_.end();
}

const TensorInfo& Weights::info(std::string_view tensor) const {
    const auto found = tensors_.find(tensor);
    require(found != tensors_.end(), "[weights] {}: expected a tensor {}, found none of this name",
            file_, tensor);
    return found->second;
}

std::vector<float> Weights::floats(std::string_view tensor,
                                   const std::vector<int64_t>& expected_shape) const {
    const TensorInfo& found = info(tensor);
    require(matches(found.shape, expected_shape),
            "[weights] {}: tensor {}: expected shape {}, found {}", file_, tensor,
            shape_text(expected_shape), shape_text(found.shape));
    switch (found.type) {
        case StoredType::F32:
            return convert<float>(found.bytes, [](float x) { return x; });
        case StoredType::F16:
            return convert<uint16_t>(found.bytes, half_to_float);
        case StoredType::BF16:
            return convert<uint16_t>(found.bytes, bfloat16_to_float);
        case StoredType::I8:
            return convert<int8_t>(found.bytes, [](int8_t x) { return static_cast<float>(x); });
        case StoredType::U8:
            return convert<uint8_t>(found.bytes, [](uint8_t x) { return static_cast<float>(x); });
        default:
            fail("[weights] {}: tensor {}: expected F32, F16, BF16, I8 or U8, found {}", file_,
                 tensor, type_name(found.type));
    }
}

std::vector<std::string> Weights::names() const {
    std::vector<std::string> names;
    names.reserve(tensors_.size());
    for (const auto& [name, info] : tensors_) names.push_back(name);
    return names;
}

}  // namespace fovea
