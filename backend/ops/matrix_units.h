#pragma once

#include "backend/tensor.h"
#include "backend/vk/device.h"

/// What the kernels on matrix units of attention, gemm and conv2d have in common on the host.
namespace fovea {

/// No fp16 matrices with fp32 sums: kernels on matrix units, where they can run, run emulated.
bool lacks_matrices(const vk::DeviceInfo& device);

/// FOVEA_EMULATE_MATRICES=1 runs these kernels on plain registers where the device has no matrix
/// units: slowly, so that tests reach them everywhere (shaders/common/matrices.glsl).
bool emulates_matrices(const vk::DeviceInfo& device);

/// Whether a module made for `device_has`, one of DeviceInfo's supports, can run on tensors of a
/// type.
vk::Support matrix_support(const vk::Support& device_has, const vk::DeviceInfo& device,
                           const vk::Shader& shader, DType dtype);

/// FOVEA_MATRIX=MxNxK: another of the device's shapes, for tests and measurements; all zero where
/// it is not set. Throws Error for a shape that the device does not list.
vk::MatrixShape forced_matrix_shape(const vk::DeviceInfo& device);

/// Where the first eight elements of an invocation's part of an m × n matrix of sums are, four bits
/// each: for kernels that keep something by rows, or know which keys they mask.
struct ElementPlaces {
    /// First element that is of the same row in every invocation.
    uint32_t rows = 0x76543210;
    /// Columns right of the invocation's first element, where they are the same in every
    /// invocation.
    uint32_t columns = kUnknown;

    static constexpr uint32_t kUnknown = 0xffffffff;
};

/// Asked of the device, once. What is not known stays as it is above.
ElementPlaces element_places(vk::Device& device, vk::MatrixShape shape);

}  // namespace fovea
