#include "backend/ops/matrix_units.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "backend/error.h"

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

}  // namespace fovea
