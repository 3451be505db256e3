#include "backend/ops/attention_rate.h"

#include <algorithm>
#include <chrono>

#include "backend/ops/attention_kernel.h"
#include "backend/ops/noise.h"
#include "backend/patterns/planner.h"

namespace fovea {
namespace {

double seconds_of(vk::Stream& stream, const Tensor& x, const Pattern& pattern, AttentionPath path) {
    const auto once = [&] {
        const auto begin = std::chrono::steady_clock::now();
        attention(stream, x, x, x, pattern, {.path = path});
        stream.wait();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    once();  // makes the pipeline and the list
    return std::min({once(), once(), once()});
}

}  // namespace

AttentionRate measure_attention(vk::Stream& stream, uint32_t head_dim, DType dtype,
                                AttentionPath path) {
    const vk::DeviceInfo& device = stream.device().info();
    const bool cpu = device.type == vk::DeviceType::cpu;
    const uint32_t heads = cpu ? 1 : 16, least = 32, most = cpu ? 32 : 128;
    constexpr double kEnough = 0.01;  // seconds: the clock and the submission do not matter
    AttentionRate rate{.path = choose_path(device, dtype, path)};
    for (uint32_t side = least; side <= most; side *= 2) {
        const uint32_t tokens = side * side;
        const Tensor x = noise(stream, {1, heads, tokens, head_dim}, side, 0, dtype);
        const Grid grid{.shape = {side, side}};
        const auto measure = [&](const Pattern& pattern) {
            return seconds_of(stream, x, pattern, rate.path);
        };
        const TileShape tile =
            choose_attention(device, self_attention_problem(heads, tokens, head_dim, dtype), {0, 0},
                             rate.path)
                .block();
        const double block = 4.0 * tile.q * tile.k * head_dim * heads;  // FLOP, all heads
        const auto blocks = [&](const Pattern& pattern) {
            const BlockList list = block_list(pattern, tile, tokens, tokens);
            const auto full = static_cast<double>(list.full_blocks());
            return std::pair(full, static_cast<double>(list.visited_blocks()) - full);
        };

        const double dense_seconds = measure(dense());
        rate.dense = 4.0 * tokens * tokens * head_dim * heads / dense_seconds;
        const uint32_t half = side / 2, window = side / 4 + 1;
        const Pattern halves = neighborhood(grid, {.window = {half, half}, .stride = {half, half}});
        const Pattern sliding = neighborhood(grid, {.window = {window, window}});
        const auto [full, ragged] = blocks(halves);
        rate.full = (full + ragged) * block / measure(halves);
        const auto [inside, masked] = blocks(sliding);
        const double left = measure(sliding) - inside * block / rate.full;
        rate.partial = masked * block / std::max(left, masked * block / (2 * rate.full));
        if (dense_seconds >= kEnough) break;
    }
    return rate;
}

}  // namespace fovea
