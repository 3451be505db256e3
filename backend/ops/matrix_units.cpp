#include "backend/ops/matrix_units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
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

struct KnownRows {
    std::map<std::tuple<uint32_t, uint32_t, uint32_t>, uint32_t> of_shape;
};

uint32_t ask_rows(vk::Device& device, vk::MatrixShape shape) {
    const uint32_t lanes = device.info().limits.subgroup_size;
    const uint32_t elements = shape.m * shape.n / lanes;
    if (shader::element_rows.code.empty() || elements == 0 || elements > 8) return kRowsUnknown;
    vk::Stream stream(device);
    const Tensor y = empty(device, {int64_t{elements}, int64_t{lanes}}, DType::f32);
    stream.fill(write(y), 0xffffffff);
    stream.dispatch(device.program(shader::element_rows, {lanes, shape.m, shape.n, shape.k}, true),
                    {write(y)}, uint32_t{0}, {1}, "element rows");
    const std::vector<float> rows = to_host(stream, y);
    uint32_t packed = kRowsUnknown;
    for (uint32_t i = 0; i < elements; ++i) {
        for (uint32_t first = 0; first < i; ++first) {
            const auto row = [&](uint32_t element) { return rows.begin() + element * lanes; };
            if (!std::equal(row(i), row(i) + lanes, row(first))) continue;
            packed = (packed & ~(15u << 4 * i)) | first << 4 * i;
            break;
        }
    }
    return packed;
}

}  // namespace

uint32_t rows_of_elements(vk::Device& device, vk::MatrixShape shape) {
    auto& known = device.cache<KnownRows>().of_shape;
    const std::tuple key{shape.m, shape.n, shape.k};
    if (const auto found = known.find(key); found != known.end()) return found->second;
    return known[key] = ask_rows(device, shape);
}

}  // namespace fovea
