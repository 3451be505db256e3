/// Prints time and TFLOP/s of attention by shape, pattern and path: the median of GPU timestamps,
/// the first dispatch (which compiles) left out; 4 · head_dim FLOP a pair of a visited block. A few
/// rows of every result are compared with a double sum on the host. Usage:
/// fovea_attention_bench [filter] [seconds a row]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backend/half.h"
#include "backend/ops/attention.h"
#include "backend/ops/noise.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/planner.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"

namespace fovea {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Kept or dropped by chance, the diagonal always kept.
Pattern random_blocks(uint32_t tokens, uint32_t block, double density) {
    const uint32_t blocks = (tokens + block - 1) / block;
    std::vector<uint8_t> mask(size_t{blocks} * blocks);
    uint64_t state = 1;
    for (size_t i = 0; i < mask.size(); ++i) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        const double x = double(state >> 40) / double(1 << 24);
        mask[i] = i / blocks == i % blocks || x < density;
    }
    return block_sparse(BlockSparseOptions{
        .q_blocks = blocks, .k_blocks = blocks, .block_q = block, .block_k = block, .mask = mask});
}

struct Bench {
    vk::Device device;
    std::string filter;
    double seconds = 0.2;

    void row(const std::string& name, const Pattern& pattern, uint32_t heads, uint32_t tokens,
             uint32_t dim, std::vector<float> perturb = {}, DType dtype = DType::f16) {
        for (const auto& [path, support] : attention_paths(device.info(), dtype)) {
            const std::string full = fmt::format("{} {}", name, name_of(path));
            if (!support.ok || full.find(filter) == std::string::npos) continue;
            try {
                run(full, pattern, heads, tokens, dim, perturb, dtype, path);
            } catch (const std::exception& error) {
                fmt::print("{:<58} {}\n", full, error.what());
            }
            device.trim();
            std::fflush(stdout);
        }
    }

    void run(const std::string& name, const Pattern& pattern, uint32_t heads, uint32_t tokens,
             uint32_t dim, const std::vector<float>& perturb, DType dtype, AttentionPath path) {
        vk::Stream stream(device);
        const Shape shape{1, heads, tokens, dim};
        const Tensor q = noise(stream, shape, 1, 1, dtype), k = noise(stream, shape, 1, 2, dtype),
                     v = noise(stream, shape, 1, 3, dtype);
        AttentionOptions options{.path = path};
        if (!perturb.empty()) options.perturb = upload(stream, perturb, {heads}, DType::f32);
        {
            const Tensor poison = empty(device, shape, dtype);
            stream.fill(write(poison), 0xffffffff);
        }
        auto begin = Clock::now();
        Tensor o = attention(stream, q, k, v, pattern, options);
        stream.wait();
        const double first = seconds_since(begin);
        const double error = worst_error(stream, pattern, q, k, v, o, perturb);
        stream.profile(true);
        begin = Clock::now();
        do {
            o = {};
            o = attention(stream, q, k, v, pattern, options);
            stream.wait();
        } while (seconds_since(begin) < seconds);
        std::vector<double> times;
        for (const vk::ProfileEvent& event : stream.profile_events())
            if (event.name == "attention") times.push_back(event.duration_us);
        std::sort(times.begin(), times.end());
        const double ms = times[times.size() / 2] / 1e3;
        // The kernel's own tile is not public; 64 × 64 is near enough for the share of blocks.
        const BlockList list = block_list(pattern, {64, 64}, tokens, tokens);
        double share = list.visited_share();
        if (!perturb.empty())
            share *= 1 - std::count(perturb.begin(), perturb.end(), 1.0f) / double(heads);
        const double dense = 4.0 * heads * tokens * tokens * dim;
        fmt::print(
            "{:<58} {:10.3f} ms {:7.1f} TFLOP/s, blocks {:.4f} pairs {:.4f}, best {:.3f} ms of {}, "
            "first {:.2f} s, error {:.1e}{}\n",
            name, ms, dense * share / ms / 1e9, share, list.kept_share(), times[0] / 1e3,
            times.size(), first, error, error < 5e-3 ? "" : "  WRONG");
    }

    /// Largest error of o over some queries of the last head.
    double worst_error(vk::Stream& stream, const Pattern& all, const Tensor& q, const Tensor& k,
                       const Tensor& v, const Tensor& o, const std::vector<float>& perturb) {
        const auto h = static_cast<uint32_t>(q.dim(1) - 1);
        const Pattern pattern = all.head(h);
        const auto tokens = static_cast<size_t>(q.dim(2)), d = static_cast<size_t>(q.dim(3));
        const auto head = [&](const Tensor& x) { return to_host(stream, x.index(0).index(h)); };
        const auto hq = head(q), hk = head(k), hv = head(v), ho = head(o);
        double worst = 0;
        for (const size_t i : {size_t{0}, tokens / 2 + 3, tokens - 1}) {
            double total = 0;
            std::vector<double> sum(d), scores(tokens, -1e300);
            double max = -1e300;
            for (size_t j = 0; j < tokens; ++j) {
                if (!pattern.keeps(static_cast<uint32_t>(i), static_cast<uint32_t>(j))) continue;
                double dot = 0;
                for (size_t c = 0; c < d; ++c) dot += double{hq[i * d + c]} * hk[j * d + c];
                scores[j] = dot / std::sqrt(double(d));
                max = std::max(max, scores[j]);
            }
            for (size_t j = 0; j < tokens; ++j) {
                if (scores[j] == -1e300) continue;
                const double weight = std::exp(scores[j] - max);
                total += weight;
                for (size_t c = 0; c < d; ++c) sum[c] += weight * hv[j * d + c];
            }
            const double u = perturb.empty() ? 0 : perturb[h];
            for (size_t c = 0; c < d; ++c) {
                const double wanted = (1 - u) * sum[c] / total + u * hv[i * d + c];
                const double error = std::abs(wanted - ho[i * d + c]);
                worst = std::isnan(error) ? 1e9 : std::max(worst, error);
            }
        }
        return worst;
    }
};

}  // namespace
}  // namespace fovea

int main(int argc, char** argv) {
    using namespace fovea;
    Bench bench;
    if (argc > 1) bench.filter = argv[1];
    if (argc > 2) bench.seconds = std::stod(argv[2]);
    fmt::print("{}, {}\n", bench.device.info().name, bench.device.info().driver);
    if (bench.device.info().type == vk::DeviceType::cpu) {
        for (const DType dtype : {DType::f32, DType::f16}) {
            bench.row("small dense 4 x 256 x 64", dense(), 4, 256, 64, {}, dtype);
            bench.row("small window 4 x 32x32 x 64",
                      neighborhood({.shape = {32, 32}}, {.window = {9, 9}}), 4, 1024, 64, {},
                      dtype);
        }
        return 0;
    }
    bench.row("dense FLUX 1024 24 x 4608 x 128", dense(), 24, 4608, 128);
    bench.row("dense Wan 1.3B 480p 12 x 32760 x 128", dense(), 12, 32760, 128);
    bench.row("dense CogVideoX 48 x 17776 x 64", dense(), 48, 17776, 64);
    bench.row("dense SD3 24 x 4429 x 64", dense(), 24, 4429, 64);
    bench.row("dense SAM 12 x 4096 x 64", dense(), 12, 4096, 64);
    bench.row("dense DiT-XL/2 16 x 1024 x 72", dense(), 16, 1024, 72);
    const Grid video{.shape = {30, 48, 80}}, picture{.shape = {256, 256}};
    bench.row("big dense 24 x 115200 x 128", dense(), 24, 115200, 128);
    bench.row("big neighborhood 18x24x24:16x8x8",
              neighborhood(video, {.window = {18, 24, 24}, .stride = {16, 8, 8}}), 24, 115200, 128);
    bench.row("big neighborhood 18x24x24", neighborhood(video, {.window = {18, 24, 24}}), 24,
              115200, 128);
    bench.row("big picture 256x256 80x80:16x16",
              neighborhood(picture, {.window = {80, 80}, .stride = {16, 16}}), 24, 65536, 128);
    bench.row("big radial 120000 decay 0.95",
              radial({.frames = 33, .tokens_per_frame = 3600, .tokens = 120000, .decay = 0.95}), 24,
              120000, 128);
    bench.row(
        "big radial Wan 40 x 75600 decay 0.2",
        radial({.frames = 21, .tokens_per_frame = 3600, .decay = 0.2, .sink_first_frame = true}),
        40, 75600, 128);
    for (const double density : {0.1, 0.3})
        bench.row(fmt::format("big block_sparse 128 {}", density),
                  random_blocks(115200, 128, density), 24, 115200, 128);
    bench.row("big block_sparse 64 0.1", random_blocks(115200, 64, 0.1), 24, 115200, 128);
    bench.row("big disc 256x256 r 32", disc(picture, 32, 512), 24, 65536 + 512, 128);
    {
        std::vector<uint8_t> mask(size_t{900} * 900);
        for (size_t i = 0; i < mask.size(); ++i)
            mask[i] = std::abs(int(i / 900) - int(i % 900)) < 60 || i % 7 == 0;
        std::vector<AxisOrder> orders;
        for (int h = 0; h < 24; ++h) orders.push_back(static_cast<AxisOrder>(h % 6));
        bench.row(
            "big reordered 128",
            reordered(
                {.grid = video, .orders = orders, .block_q = 128, .block_k = 128, .mask = mask}),
            24, 115200, 128);
    }
    std::vector<float> half_perturbed(24, 0.0f);
    for (size_t h = 0; h < 12; ++h) half_perturbed[h] = 1;
    half_perturbed[23] = 0.5f;
    bench.row("big perturbed 12 of 24 heads", dense(), 24, 115200, 128, half_perturbed);
    bench.row("FLUX all heads perturbed 24 x 4608 x 128", dense(), 24, 4608, 128,
              std::vector<float>(24, 1.0f));
}
