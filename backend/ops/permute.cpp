#include "backend/ops/permute.h"

#include <numeric>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

constexpr size_t kRank = 6;

struct Axis {
    int64_t extent, stride;
};

// Axes of one element go; neighbours that stay neighbours in x become one: most permutations of
// models end as rank 3.
std::vector<Axis> collapse(const Shape& shape, const std::vector<int64_t>& strides) {
    std::vector<Axis> axes;
    for (size_t k = 0; k < shape.size(); ++k) {
        if (shape[k] == 1) continue;
        if (!axes.empty() && axes.back().stride == shape[k] * strides[k])
            axes.back() = {axes.back().extent * shape[k], strides[k]};
        else
            axes.push_back({shape[k], strides[k]});
    }
    return axes;
}

}  // namespace

Tensor strided_copy(vk::Stream& stream, const Tensor& x, const Shape& shape,
                    const std::vector<int64_t>& strides, std::string_view op) {
    require(static_cast<bool>(x), "[{}] an input is absent", op);
    require(x.dtype() != DType::u8, "[{}] f32, i32 or f16 expected, found u8", op);
    require(shape.size() <= kRank && shape.size() == strides.size(),
            "[{}] at most {} axes with a stride each, found {} and {}", op, kRank, shape.size(),
            strides.size());
    int64_t last = 0;
    for (size_t k = 0; k < shape.size(); ++k) {
        require(strides[k] >= 0, "[{}] negative stride {}", op, strides[k]);
        last += (shape[k] - 1) * strides[k];
    }
    require(last < x.numel(), "[{}] element {} read of {}", op, last, to_string(x.shape()));

    Tensor y = empty(stream.device(), shape, x.dtype());
    count_of(op, x);
    const uint32_t count = count_of(op, y);
    const auto axes = collapse(shape, strides);
    shader::StridedParams params{.shape = {1, 1, 1, 1, 1, 1}, .strides = {}};
    for (size_t k = 0; k < axes.size(); ++k) {
        const size_t slot = kRank - axes.size() + k;
        params.shape[slot] = static_cast<uint32_t>(axes[k].extent);
        params.strides[slot] = static_cast<uint32_t>(axes[k].stride);
    }
    // Neighbouring invocations of a GPU want neighbouring elements; a CPU wants fewer divisions.
    uint32_t run = is_cpu(stream) ? 8 : 1;
    while (params.shape[kRank - 1] % run != 0) run /= 2;
    params.runs = count / run;

    const auto& shader = bytes_of(x.dtype()) == 2 ? shader::permute_16 : shader::permute_32;
    stream.dispatch(stream.device().program(shader, {kElementGroup, run}), {write(y), read(x)},
                    params, groups_for(params.runs, kElementGroup), op);
    return y;
}

Tensor permute(vk::Stream& stream, const Tensor& x, const std::vector<int>& axes) {
    require(static_cast<bool>(x), "[permute] an input is absent");
    const auto rank = static_cast<size_t>(x.rank());
    require(axes.size() == rank, "[permute] {} axes for shape {}", axes.size(),
            to_string(x.shape()));
    std::vector<int64_t> x_strides(rank, 1);
    for (size_t k = rank; k-- > 1;) {
        x_strides[k - 1] = x_strides[k] * x.shape()[k];
        if (x_strides[k - 1] == x.run()) x_strides[k - 1] = x.pitch(x.run());
    }
    Shape shape;
    std::vector<int64_t> strides;
    std::vector<bool> seen(rank, false);
    for (const int axis : axes) {
        const auto k = static_cast<size_t>(axis);
        require(axis >= 0 && k < rank && !seen[k],
                "[permute] axis {} is outside shape {} or named twice", axis, to_string(x.shape()));
        seen[k] = true;
        shape.push_back(x.shape()[k]);
        strides.push_back(x_strides[k]);
    }
    const auto span = static_cast<int64_t>(x.bytes() / bytes_of(x.dtype()));
    const Tensor from(x.buffer(), {span}, x.dtype(), x.offset());  // with what lies between
    return strided_copy(stream, from, shape, strides, "permute");
}

Tensor compact(vk::Stream& stream, const Tensor& view) {
    std::vector<int> axes(static_cast<size_t>(view.rank()));
    std::iota(axes.begin(), axes.end(), 0);
    return permute(stream, view, axes);
}

}  // namespace fovea
