#include "backend/ops/matrix_units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <optional>
#include <tuple>

#include "backend/error.h"
#include "backend/vk/stream.h"
#include "shaders.h"

namespace fovea {

bool lacks_matrices(const vk::DeviceInfo& device) {
    return device.fp16_matrices.empty();
}

bool emulates_matrices(const vk::DeviceInfo& device) {
    const char* text = std::getenv("FOVEA_EMULATE_MATRICES");
    const uint32_t lanes = device.limits.subgroup_size;
    return lacks_matrices(device) && text && std::string(text) == "1" &&
           (lanes == 4 || lanes == 8 || lanes == 16);
}

vk::Support matrix_support(const vk::Support& device_has, const vk::DeviceInfo& device,
                           const vk::Shader& shader, DType dtype) {
    if (dtype != DType::f16)
        return {false,
                fmt::format("matrix units multiply f16, the tensors are {}", name_of(dtype))};
    if (!device_has.ok && emulates_matrices(device)) return {true, ""};
    if (device_has.ok && shader.code.empty())
        return {false, "not built: the shader compiler lacks the extension"};
    return device_has;
}

vk::MatrixShape forced_matrix_shape(const vk::DeviceInfo& device) {
    const char* text = std::getenv("FOVEA_MATRIX");
    vk::MatrixShape m;
    if (!text) return m;
    const auto& shapes = device.fp16_matrices;
    require(std::sscanf(text, "%ux%ux%u", &m.m, &m.n, &m.k) == 3 &&
                std::find(shapes.begin(), shapes.end(), m) != shapes.end(),
            "[matrices] FOVEA_MATRIX is a shape of fp16 and fp32 sums that {} lists, such as "
            "16x16x16, found \"{}\"",
            device.name, text);
    return m;
}

namespace {

struct KnownPlaces {
    std::map<std::tuple<uint32_t, uint32_t, uint32_t>, ElementPlaces> of_shape;
};

/// The same of every invocation, or nothing.
template <typename Of>
std::optional<int> common(uint32_t lanes, const Of& of) {
    for (uint32_t lane = 1; lane < lanes; ++lane)
        if (of(lane) != of(0)) return std::nullopt;
    return of(0);
}

ElementPlaces ask_places(vk::Device& device, vk::MatrixShape shape) {
    const uint32_t lanes = device.info().limits.subgroup_size;
    const uint32_t elements = shape.m * shape.n / lanes;
    ElementPlaces places;
    if (shader::element_places.code.empty() || elements == 0 || elements > 8) return places;
    vk::Stream stream(device);
    const Tensor y = empty(device, {int64_t{elements}, int64_t{lanes}}, DType::f32);
    stream.fill(write(y), 0xffffffff);
    stream.dispatch(
        device.program(shader::element_places, {lanes, shape.m, shape.n, shape.k}, true),
        {write(y)}, uint32_t{0}, {1}, "element places");
    const std::vector<float> numbers = to_host(stream, y);
    const auto number = [&](uint32_t element, uint32_t lane) {
        return static_cast<int>(numbers[element * lanes + lane]);
    };
    const int columns = static_cast<int>(shape.n);
    uint32_t right = 0;
    bool known = true;
    for (uint32_t i = 0; i < elements; ++i) {
        for (uint32_t first = 0; first < i; ++first) {
            const auto apart = common(lanes, [&](uint32_t lane) {
                return number(i, lane) / columns - number(first, lane) / columns;
            });
            if (apart != 0) continue;
            places.rows = (places.rows & ~(15u << 4 * i)) | first << 4 * i;
            break;
        }
        const auto apart = common(lanes, [&](uint32_t lane) {
            return number(i, lane) % columns - number(0, lane) % columns;
        });
        known = known && apart && *apart >= 0 && *apart < 16;
        if (known) right |= static_cast<uint32_t>(*apart) << 4 * i;
    }
    if (known) places.columns = right;
    return places;
}

}  // namespace

ElementPlaces element_places(vk::Device& device, vk::MatrixShape shape) {
    auto& known = device.cache<KnownPlaces>().of_shape;
    const std::tuple key{shape.m, shape.n, shape.k};
    if (const auto found = known.find(key); found != known.end()) return found->second;
    return known[key] = ask_places(device, shape);
}

}  // namespace fovea
