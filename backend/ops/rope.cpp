#include "backend/ops/rope.h"

#include <cmath>
#include <map>
#include <numeric>
#include <tuple>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

// cos and sin of every token and pair. Sines are taken once a position of an axis, not once a
// token.
std::vector<float> rope_table(const RopeOptions& o) {
    std::array<std::vector<float>, 3> turns;  // (extent, n/2, 2) of an axis
    for (size_t axis = 0; axis < 3; ++axis)
        for (int64_t position = 0; position < o.grid[axis]; ++position)
            for (int j = 0; j < o.axes[axis] / 2; ++j) {
                const double exponent = -j / (o.axes[axis] / 2.0);
                const double angle = static_cast<double>(position) *
                                     std::pow(static_cast<double>(o.theta), exponent);
                turns[axis].push_back(static_cast<float>(std::cos(angle)));
                turns[axis].push_back(static_cast<float>(std::sin(angle)));
            }
    std::vector<float> table;
    for (int64_t t = 0; t < o.grid[0]; ++t)
        for (int64_t row = 0; row < o.grid[1]; ++row)
            for (int64_t column = 0; column < o.grid[2]; ++column)
                for (size_t axis = 0; axis < 3; ++axis) {
                    const int64_t position = std::array{t, row, column}[axis];
                    const auto from = turns[axis].begin() + position * o.axes[axis];
                    table.insert(table.end(), from, from + o.axes[axis]);
                }
    return table;
}

/// Tables stay on the device: all layers and steps share one. Bounded: a program with more grids
/// at once than this makes some of them again.
struct RopeTables {
    static constexpr size_t kMost = 64;
    std::map<std::tuple<std::array<int, 3>, std::array<int64_t, 3>, float>, Tensor> tables;
};

Tensor device_table(vk::Stream& stream, const RopeOptions& o, const Shape& shape) {
    auto& tables = stream.device().cache<RopeTables>().tables;
    const auto key = std::tuple(o.axes, o.grid, o.theta);
    if (const auto found = tables.find(key); found != tables.end()) return found->second;
    if (tables.size() >= RopeTables::kMost) tables.clear();
    const Tensor table = upload(stream, rope_table(o), shape, DType::f32);
    stream.submit();  // the cache may outlive the stream
    return tables.emplace(key, table).first->second;
}

}  // namespace

Tensor rope(vk::Stream& stream, const Tensor& x, const RopeOptions& o) {
    const uint32_t count = count_of("rope", x);
    const bool tokens_first = o.layout == HeadLayout::tokens_first;
    require(x.rank() == 4, "[rope] (batch, {}, head_dim) expected, found {}",
            tokens_first ? "tokens, heads" : "heads, tokens", to_string(x.shape()));
    const int64_t tokens = x.dim(tokens_first ? 1 : 2), head_dim = x.dim(3);
    const int64_t together = tokens_first ? x.dim(2) : 1;
    require(o.grid[0] * o.grid[1] * o.grid[2] == tokens, "[rope] grid {}×{}×{} for {} tokens",
            o.grid[0], o.grid[1], o.grid[2], tokens);
    for (const int n : o.axes)
        require(n >= 0 && n % 2 == 0, "[rope] axes of an even number of dims expected, found {}",
                n);
    const int rotated = std::accumulate(o.axes.begin(), o.axes.end(), 0);
    require(rotated <= head_dim, "[rope] axes of {} dims together, a head has {}", rotated,
            head_dim);
    require_like("rope", "norm_weight", o.norm_weight, {head_dim}, x.dtype());

    Tensor table;
    if (rotated > 0) table = device_table(stream, o, {tokens, rotated});
    Tensor y = empty(stream.device(), x.shape(), x.dtype());
    const auto rows = static_cast<uint32_t>(count / head_dim);
    auto plan = row_plan(stream, rows, static_cast<uint64_t>(head_dim));
    plan.constants.push_back(bool(o.norm_weight));
    const shader::RopeParams params{.rows = rows,
                                    .tokens = static_cast<uint32_t>(tokens),
                                    .head_dim = static_cast<uint32_t>(head_dim),
                                    .rotated = static_cast<uint32_t>(rotated),
                                    .eps = o.eps,
                                    .together = static_cast<uint32_t>(together),
                                    .pitch = static_cast<uint32_t>(x.pitch(together * head_dim))};
    const auto& shader = by_dtype("rope", x.dtype(), shader::rope_f32, shader::rope_f16);
    stream.dispatch(stream.device().program(shader, plan.constants),
                    {write(y), read_view(x), read(table), read(o.norm_weight)}, params, plan.groups,
                    "rope");
    return y;
}

}  // namespace fovea
