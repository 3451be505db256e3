#include "vision/methods/calibration.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "backend/error.h"
#include "backend/ops/block_mass.h"
#include "backend/ops/permute.h"
#include "vision/layers.h"
#include "vision/weights.h"

namespace fovea {
namespace {

constexpr AxisOrder kOrders[] = {AxisOrder::fhw, AxisOrder::fwh, AxisOrder::hwf,
                                 AxisOrder::hfw, AxisOrder::whf, AxisOrder::wfh};
constexpr size_t kOrderCount = std::size(kOrders);
constexpr const char* kFormat = "fovea calibration 1";

Grid grid_of(const MassSettings& s) {
    return {.shape = {s.grid[0], s.grid[1], s.grid[2]}};
}

/// What all of a range's clips, steps and samples saw, summed.
struct Pooled {
    std::vector<double> mass;  // (blocks, blocks)
    double count = 0;
};

double sum_of_largest(std::vector<double> values, size_t count) {
    count = std::min(count, values.size());
    std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count),
                     values.end(), std::greater<>());
    return std::accumulate(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count),
                           0.0);
}

}  // namespace

void validate(const MassSettings& s) {
    require(s.layers >= 1 && s.layers <= 1024 && s.heads >= 1 && s.heads <= 1024,
            "[calibration] 1 to 1024 layers and heads expected, found {} and {}", s.layers,
            s.heads);
    for (const uint32_t extent : s.grid)
        require(extent >= 1 && extent <= 4096,
                "[calibration] a grid of 1 to 4096 an axis, found {}", fmt::join(s.grid, "x"));
    const uint64_t tokens = grid_of(s).tokens();
    require(s.block >= 1 && s.block <= tokens,
            "[calibration] blocks of 1 to {} tokens, all of {}, expected, found {}", tokens,
            fmt::join(s.grid, "x"), s.block);
    require(s.blocks() <= 4096, "[calibration] at most 4096 blocks expected, found {}", s.blocks());
    const auto not_after = [](float a, float b) { return !(a < b); };  // NaN too
    require(!s.range_ends.empty() && s.range_ends.back() == 1 && s.range_ends.size() <= 64 &&
                s.range_ends.front() > 0 &&
                std::adjacent_find(s.range_ends.begin(), s.range_ends.end(), not_after) ==
                    s.range_ends.end(),
            "[calibration] ranges of steps that ascend from above 0 to 1 expected, found {}",
            fmt::join(s.range_ends, ", "));
}

size_t MassSettings::range_of(int step, int steps) const {
    const float at = static_cast<float>(step) / static_cast<float>(std::max(steps, 1));
    size_t range = 0;
    while (range + 1 < range_ends.size() && at >= range_ends[range] - 1e-6f) ++range;
    return range;
}

uint32_t MassSettings::blocks() const {
    const uint64_t tokens = grid_of(*this).tokens();
    return static_cast<uint32_t>((tokens + block - 1) / block);
}

Pattern Calibration::pattern(int64_t layer, int step, int steps) const {
    const auto& s = settings;
    require(layer >= 0 && layer < s.layers, "[calibration] layer {} asked for, there are {}", layer,
            s.layers);
    const size_t heads = static_cast<size_t>(s.heads), head_size = size_t{s.blocks()} * s.blocks();
    const size_t first = s.range_of(step, steps) * static_cast<size_t>(s.layers) * heads +
                         static_cast<size_t>(layer) * heads;
    const auto of_layer = orders.begin() + layer * s.heads;
    const auto mask = masks.begin() + static_cast<std::ptrdiff_t>(first * head_size);
    return reordered({.grid = grid_of(s),
                      .orders = {of_layer, of_layer + s.heads},
                      .block_q = s.block,
                      .block_k = s.block,
                      .mask = {mask, mask + static_cast<std::ptrdiff_t>(heads * head_size)}});
}

PatternSchedule Calibration::schedule() const {
    auto made = std::make_shared<std::vector<Pattern>>();
    for (const float end : settings.range_ends)
        for (int64_t layer = 0; layer < settings.layers; ++layer)
            made->push_back(pattern(layer, static_cast<int>(std::lround(end * 10000)) - 1, 10000));
    return [made, s = settings](int64_t layer, int step, int steps) {
        require(layer >= 0 && layer < s.layers, "[calibration] layer {} asked for, there are {}",
                layer, s.layers);
        return made->at(s.range_of(step, steps) * static_cast<size_t>(s.layers) +
                        static_cast<size_t>(layer));
    };
}

double Calibration::density(size_t range) const {
    const size_t size = masks.size() / settings.range_ends.size();
    const auto begin = masks.begin() + static_cast<std::ptrdiff_t>(range * size);
    const auto kept =
        std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(size), uint64_t{0});
    return static_cast<double>(kept) / static_cast<double>(size);
}

double Calibration::density() const {
    double sum = 0, before = 0;
    for (size_t r = 0; r < settings.range_ends.size(); ++r) {
        sum += density(r) * (settings.range_ends[r] - before);
        before = settings.range_ends[r];
    }
    return sum;
}

struct Calibrator::Masses {
    MassSettings settings;
    std::vector<Pattern> everything;  ///< of each order: all blocks
    std::vector<Pooled> pooled;       // (ranges, layers, heads, orders)
    int step = 0, steps = 1;
    bool measures = true;

    /// Share of the measured run's steps that are in this range, of those from `from` on.
    double weight(size_t range, float from) const {
        const int first = static_cast<int>(std::lround(from * static_cast<float>(steps)));
        int count = 0;
        for (int s = first; s < steps; ++s) count += settings.range_of(s, steps) == range;
        return static_cast<double>(count) / std::max(steps - first, 1);
    }
    Pooled& at(size_t range, int64_t layer, int64_t head, size_t order) {
        return pooled[((range * static_cast<size_t>(settings.layers) + static_cast<size_t>(layer)) *
                           static_cast<size_t>(settings.heads) +
                       static_cast<size_t>(head)) *
                          kOrderCount +
                      order];
    }
};

Calibrator::Calibrator(MassSettings settings) : masses_(std::make_unique<Masses>()) {
    validate(settings);
    Masses& m = *masses_;
    m.settings = std::move(settings);
    const size_t size = size_t{m.settings.blocks()} * m.settings.blocks();
    for (const AxisOrder order : kOrders)
        m.everything.emplace_back(reordered({.grid = grid_of(m.settings),
                                             .orders = {order},
                                             .block_q = m.settings.block,
                                             .block_k = m.settings.block,
                                             .mask = std::vector<uint8_t>(size, 1)}));
    m.pooled.resize(m.settings.range_ends.size() *
                    static_cast<size_t>(m.settings.layers * m.settings.heads) * kOrderCount);
    for (Pooled& p : m.pooled) p.mass.resize(size);
}

Calibrator::~Calibrator() = default;

void Calibrator::begin_step(int step, int steps) {
    Masses& m = *masses_;
    m.step = step;
    m.steps = steps;
    const size_t range = m.settings.range_of(step, steps);
    int first = step, last = step;
    while (first > 0 && m.settings.range_of(first - 1, steps) == range) --first;
    while (last + 1 < steps && m.settings.range_of(last + 1, steps) == range) ++last;
    m.measures = step == first || step == (first + last + 1) / 2;
}

Tensor Calibrator::attention(vk::Stream& stream, const SelfAttention& x) {
    Masses& m = *masses_;
    const auto& s = m.settings;
    require(x.layer < s.layers && x.q.dim(2) == s.heads,
            "[calibration] {} layers of {} heads expected, found layer {} of {} heads", s.layers,
            s.heads, x.layer, x.q.dim(2));
    const Tensor q = permute(stream, x.q, {0, 2, 1, 3}), k = permute(stream, x.k, {0, 2, 1, 3});
    const size_t range = s.range_of(m.step, m.steps), size = size_t{s.blocks()} * s.blocks();
    Tensor lse;
    const Tensor o = attend(stream, x.q, x.k, x.v, dense(), {.lse = &lse});
    if (!m.measures) return o;
    for (size_t order = 0; order < kOrderCount; ++order) {
        const auto mass =
            to_host(stream, block_mass(stream, q, k, m.everything[order],
                                       {.block_q = s.block, .block_k = s.block, .lse = lse}));
        for (int64_t i = 0; i < q.dim(0) * s.heads; ++i) {
            Pooled& pooled = m.at(range, x.layer, i % s.heads, order);
            for (size_t j = 0; j < size; ++j)
                pooled.mass[j] += mass[static_cast<size_t>(i) * size + j];
            pooled.count += 1;
        }
    }
    return o;
}

Calibration Calibrator::choose(double density, float from) const {
    require(density > 0 && density <= 1,
            "[calibration] a density above 0 and up to 1 expected, found {}", density);
    Masses& m = *masses_;
    const MassSettings& s = m.settings;
    const uint32_t n = s.blocks();
    const size_t size = size_t{n} * n, ranges = s.range_ends.size();
    for (size_t r = 0; r < ranges; ++r)
        require(m.at(r, s.layers - 1, 0, 0).count > 0,
                "[calibration] no step was measured in range {} of {}: take more steps", r + 1,
                ranges);
    Calibration c{.settings = s};
    const auto wanted = static_cast<size_t>(std::ceil(density * static_cast<double>(size)));
    for (int64_t layer = 0; layer < s.layers; ++layer)
        for (int64_t head = 0; head < s.heads; ++head) {
            std::array<double, kOrderCount> held{};
            for (size_t order = 0; order < kOrderCount; ++order)
                for (size_t r = 0; r < ranges; ++r) {
                    const Pooled& p = m.at(r, layer, head, order);
                    held[order] += sum_of_largest(p.mass, wanted) / p.count;
                }
            c.orders.push_back(kOrders[std::max_element(held.begin(), held.end()) - held.begin()]);
        }

    // One threshold for all: where attention is spread out more blocks are kept than where it is
    // not. A step's block counts once, so a range's counts as often as it has steps.
    struct Candidate {
        float mass, weight;
        size_t at;
    };
    std::vector<Candidate> candidates;
    c.masks.resize(ranges * c.orders.size() * size);
    double all = 0, kept = 0;
    for (size_t r = 0; r < ranges; ++r) {
        const double weight = m.weight(r, from);
        for (size_t i = 0; i < c.orders.size(); ++i) {
            const Pooled& p =
                m.at(r, static_cast<int64_t>(i) / s.heads, static_cast<int64_t>(i) % s.heads,
                     static_cast<size_t>(c.orders[i]));
            const size_t first = (r * c.orders.size() + i) * size;
            all += weight * static_cast<double>(size);
            for (size_t row = 0; row < n; ++row) {
                const auto begin = p.mass.begin() + static_cast<std::ptrdiff_t>(row * n);
                const auto largest =
                    static_cast<size_t>(std::max_element(begin, begin + n) - begin);
                for (size_t column = 0; column < n; ++column) {
                    const size_t at = first + row * n + column;
                    if (column == largest) {
                        c.masks[at] = 1;
                        kept += weight;
                    } else {
                        candidates.push_back({static_cast<float>(begin[column] / p.count),
                                              static_cast<float>(weight), at});
                    }
                }
            }
        }
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.mass > b.mass; });
    for (const Candidate& candidate : candidates) {
        if (kept + candidate.weight > density * all) break;
        c.masks[candidate.at] = 1;
        kept += candidate.weight;
    }
    return c;
}

double Calibrator::kept_mass(const Calibration& c) const {
    const MassSettings& s = masses_->settings;
    const size_t size = size_t{s.blocks()} * s.blocks();
    double sum = 0;
    for (size_t r = 0; r < s.range_ends.size(); ++r) {
        for (size_t i = 0; i < c.orders.size(); ++i) {
            const Pooled& p =
                masses_->at(r, static_cast<int64_t>(i) / s.heads, static_cast<int64_t>(i) % s.heads,
                            static_cast<size_t>(c.orders[i]));
            double own = 0;
            for (size_t j = 0; j < size; ++j)
                if (c.masks[(r * c.orders.size() + i) * size + j]) own += p.mass[j];
            sum += masses_->weight(r, 0) * own / p.count / s.blocks();
        }
    }
    return sum / static_cast<double>(c.orders.size());
}

void save_calibration(const std::filesystem::path& path, const Calibration& c) {
    const MassSettings& s = c.settings;
    const int64_t ranges = std::ssize(s.range_ends), n = s.blocks();
    NamedTensor orders{"orders", StoredType::U8, {s.layers, s.heads}, {}};
    for (const AxisOrder order : c.orders) orders.values.push_back(static_cast<float>(order));
    const int64_t bytes = (n * n + 7) / 8;
    NamedTensor masks{"masks", StoredType::U8, {ranges, s.layers, s.heads, bytes}, {}};
    const auto size = static_cast<size_t>(n * n);
    for (size_t first = 0; first < c.masks.size(); first += size)
        for (size_t byte = 0; byte < static_cast<size_t>(bytes); ++byte) {
            uint32_t bits = 0;
            for (size_t i = 8 * byte; i < std::min(size, 8 * byte + 8); ++i)
                bits |= uint32_t{c.masks[first + i] != 0} << (i % 8);
            masks.values.push_back(static_cast<float>(bits));
        }
    const nlohmann::json json{{"format", kFormat},      {"grid", s.grid},
                              {"block", s.block},       {"layers", s.layers},
                              {"heads", s.heads},       {"range_ends", s.range_ends},
                              {"density", c.density()}, {"notes", c.notes}};
    const NamedTensor tensors[] = {orders, masks};
    write_safetensors(path, tensors, {{"calibration", json.dump()}});
}

Calibration load_calibration(const std::filesystem::path& path) {
    const Weights file = Weights::open(path);
    const auto found = file.metadata().find("calibration");
    require(
        found != file.metadata().end(),
        "[calibration] {} has no \"calibration\" in its metadata: not a file of fovea calibrate",
        path.string());
    Calibration c;
    MassSettings& s = c.settings;
    try {
        const auto json = nlohmann::json::parse(found->second);
        require(json.at("format") == kFormat, "[calibration] {}: format {} found, {} expected",
                path.string(), json.at("format").dump(), kFormat);
        s.grid = json.at("grid");
        s.block = json.at("block");
        s.layers = json.at("layers");
        s.heads = json.at("heads");
        s.range_ends = json.at("range_ends").get<std::vector<float>>();
        c.notes = json.at("notes").get<std::map<std::string, std::string>>();
    } catch (const nlohmann::json::exception& error) {
        fail("[calibration] {}: {}", path.string(), error.what());
    }
    validate(s);
    const int64_t ranges = std::ssize(s.range_ends), n = s.blocks(), bytes = (n * n + 7) / 8;
    for (const float order : file.floats("orders", {s.layers, s.heads})) {
        require(order < kOrderCount, "[calibration] {}: order {} found, there are {}",
                path.string(), order, kOrderCount);
        c.orders.push_back(static_cast<AxisOrder>(order));
    }
    const auto masks = file.floats("masks", {ranges, s.layers, s.heads, bytes});
    for (size_t first = 0; first < masks.size(); first += static_cast<size_t>(bytes))
        for (size_t i = 0; i < static_cast<size_t>(n * n); ++i)
            c.masks.push_back(static_cast<uint32_t>(masks[first + i / 8]) >> (i % 8) & 1);
    return c;
}

}  // namespace fovea
