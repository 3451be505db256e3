#pragma once
/// How ops spread over workgroups; the shader side is shaders/common/{index,rows}.glsl.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "backend/error.h"
#include "backend/tensor.h"
#include "backend/vk/stream.h"

namespace fovea {

/// Vulkan guarantees this many workgroups along an axis; what is above folds into y.
constexpr uint64_t kMaxGroups = 65535;

/// Workgroups that give a large GPU's processors one each; Vulkan does not tell how many it has.
constexpr uint64_t kEnoughWorkgroups = 128;

/// Workgroups of `workgroup` invocations for n of them. Shaders drop the surplus.
inline vk::Groups groups_for(uint64_t n, uint32_t workgroup) {
    const uint64_t groups = (n + workgroup - 1) / workgroup;
    const uint64_t y = std::max<uint64_t>(1, (groups + kMaxGroups - 1) / kMaxGroups);
    return {static_cast<uint32_t>((groups + y - 1) / y), static_cast<uint32_t>(y)};
}

/// Sizes and counts as shaders take them.
inline uint32_t u32(int64_t n) {
    return static_cast<uint32_t>(n);
}

/// Vectors of four that n channels make. Throws Error for a rest.
inline uint32_t quads(std::string_view op, int64_t n) {
    require(n % 4 == 0, "[{}] channels and widths in multiples of 4 expected, found {}", op, n);
    return u32(n / 4);
}

inline bool is_cpu(const vk::DeviceInfo& device) {
    return device.type == vk::DeviceType::cpu;
}
inline bool is_cpu(const vk::Stream& stream) {
    return is_cpu(stream.device().info());
}

/// Invocations a workgroup of ops that handle each element alone.
constexpr uint32_t kElementGroup = 256;

/// Specialisation constants (workgroup size, ROW_PER_GROUP) and workgroups of a row op.
struct RowPlan {
    std::vector<uint32_t> constants;
    vk::Groups groups;
};

/// FOVEA_ROWS=group or invocation forces one of the two ways.
inline RowPlan row_plan(const vk::Stream& stream, uint64_t rows, uint64_t n) {
    const char* text = std::getenv("FOVEA_ROWS");
    const std::string_view forced = text ? text : "";
    require(forced.empty() || forced == "group" || forced == "invocation",
            "[rows] FOVEA_ROWS is group or invocation, found \"{}\"", forced);
    constexpr uint64_t kLong = 4096;  // sums of one invocation lose digits, and rows are few
    if (forced == "invocation" || (forced.empty() && is_cpu(stream) && n <= kLong))
        return {{16, 0}, groups_for(rows, 16)};
    require(stream.device().info().limits.min_subgroup_size >= 4,
            "[rows] subgroups of at least 4 invocations expected, found {}",
            stream.device().info().limits.min_subgroup_size);
    const auto workgroup =
        static_cast<uint32_t>(std::clamp<uint64_t>(std::bit_ceil((n + 3) / 4), 64, 256));
    return {{workgroup, 1}, groups_for(rows, 1)};
}

/// The module of a storage type.
inline const vk::Shader& by_dtype(std::string_view op, DType dtype, const vk::Shader& f32,
                                  const vk::Shader& f16) {
    require(dtype == DType::f32 || dtype == DType::f16, "[{}] f32 or f16 expected, found {}", op,
            name_of(dtype));
    return dtype == DType::f16 ? f16 : f32;
}

/// Element counts are 32-bit in shaders.
inline uint32_t count_of(std::string_view op, const Tensor& x) {
    require(static_cast<bool>(x), "[{}] an input is absent", op);
    require(x.numel() < (int64_t{1} << 32), "[{}] {} has 2^32 elements or more", op,
            to_string(x.shape()));
    return static_cast<uint32_t>(x.numel());
}

/// An optional input: absent, or of this shape and type.
inline void require_like(std::string_view op, std::string_view name, const Tensor& x,
                         const Shape& shape, DType dtype) {
    require(!x || (x.shape() == shape && x.dtype() == dtype),
            "[{}] {}: {} {} expected, found {} {}", op, name, name_of(dtype), to_string(shape),
            x ? name_of(x.dtype()) : "", to_string(x.shape()));
}

}  // namespace fovea
