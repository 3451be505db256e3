/// Patterns by masks of blocks, orders of axes, discs and the identity: rules against plain
/// restatements of them, and against the cases of the shared folder.

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "backend/error.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/frames.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"
#include "backend/reference/attention.h"
#include "tests/testing.h"
#include "vision/weights.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

template <typename Make>
void refuses(Make make, const char* why) {
    EXPECT_THAT(make, ThrowsMessage<Error>(HasSubstr(why)));
}

// ---- cases of the shared folder ----

struct Case {
    nlohmann::json pattern;
    Weights weights;

    uint32_t number(const char* name) const { return pattern.at(name).get<uint32_t>(); }
    std::vector<float> floats(const char* name) const {
        return weights.floats(name, weights.info(name).shape);
    }
    std::vector<uint8_t> mask() const {
        const auto bytes = weights.info("block_mask").bytes;
        std::vector<uint8_t> values;
        for (const std::byte b : bytes) values.push_back(static_cast<uint8_t>(b));
        return values;
    }
};

/// All cases of a type; none where the folder is absent.
std::vector<Case> cases(const std::string& type) {
    const std::string folder = testing::shared_folder() + "/parity/";
    std::vector<Case> found;
    std::ifstream file(folder + "index.json");
    if (!file) return found;
    for (const auto& entry : nlohmann::json::parse(file)) {
        const auto& pattern = entry.at("spec").at("pattern");
        if (pattern.at("type") == type)
            found.push_back({pattern, Weights::open(folder + entry.at("file").get<std::string>())});
    }
    return found;
}

/// Some rows of every head against the expected output.
void expect_rows(const Case& c, const Pattern& pattern) {
    const auto shape = c.weights.info("q").shape;  // (1, heads, tokens, head_dim)
    const auto heads = static_cast<uint32_t>(shape[1]), n = static_cast<uint32_t>(shape[2]),
               d = static_cast<uint32_t>(shape[3]);
    const auto q = c.floats("q"), k = c.floats("k"), v = c.floats("v"), o = c.floats("o");
    for (uint32_t h = 0; h < heads; ++h) {
        const Pattern head = pattern.head(h);
        for (uint32_t row = h; row < n; row += 41) {
            struct OneRow {  // the reference walks all rows
                Pattern pattern;
                uint32_t row;
                bool keeps(uint32_t, uint32_t key) const { return pattern.keeps(row, key); }
                Grid grid() const { return {}; }
                std::string key() const { return "row"; }
            };
            const auto part = [&](const std::vector<float>& x, size_t first, size_t rows) {
                return std::span(x).subspan((size_t{h} * n + first) * d, rows * d);
            };
            const auto found =
                reference::attention(part(q, row, 1), part(k, 0, n), part(v, 0, n),
                                     OneRow{head, row}, {.q_len = 1, .kv_len = n, .head_dim = d});
            EXPECT_TRUE(testing::close(found.o, part(o, row, 1), {1e-4f, 0}))
                << c.pattern << " head " << h << " row " << row;
        }
    }
}

Radial radial_of(const Case& c) {
    return radial({.frames = c.number("frames"),
                   .tokens_per_frame = c.number("tokens_per_frame"),
                   .tokens = c.number("tokens"),
                   .block = c.number("block"),
                   .decay = c.pattern.at("decay"),
                   .sink_first_frame = c.pattern.at("sink_first_frame")});
}

// ---- radial ----

TEST(Radial, MasksEqualTheSources) {
    const auto list = cases("radial");
    if (list.empty()) GTEST_SKIP() << "no parity cases in " << testing::shared_folder();
    for (const Case& c : list) {
        const Radial pattern = radial_of(c);
        EXPECT_EQ(pattern.block_mask().visible, c.mask()) << c.pattern;
        expect_rows(c, pattern);
    }
}

/// The rule by elements of one frame pair at a time, as the source states it.
std::vector<uint8_t> radial_by_elements(const RadialOptions& o) {
    const int s = static_cast<int>(o.tokens_per_frame), b = static_cast<int>(o.block);
    const int blocks = (static_cast<int>(o.tokens) + b - 1) / b;
    const int video = static_cast<int>(o.frames) * s / b;
    std::vector<uint8_t> mask(static_cast<size_t>(blocks * blocks));
    for (int r = 0; r < blocks; ++r)
        for (int c = 0; c < blocks; ++c)
            mask[static_cast<size_t>(r * blocks + c)] = r >= video || c >= video;
    const auto digits = [](int n) {
        int count = 0;
        for (; n > 0; n /= 2) ++count;
        return count;
    };
    for (int i = 0; i < static_cast<int>(o.frames); ++i)
        for (int j = 0; j < static_cast<int>(o.frames); ++j) {
            const int t = std::abs(i - j);
            const double reach = std::pow(2, digits(s) - digits(t));
            const auto keeps = [&](int row, int col) {
                if (o.sink_first_frame && j == 0) return true;
                if (reach < 128 && t % static_cast<int>(128 / reach) != 0) return false;
                return t <= 1 ||
                       std::abs(row - col) <= std::max(reach * o.decay, static_cast<double>(b));
            };
            const int counted = (s + b - 1) / b, row0 = i * s % b, col0 = j * s % b;
            for (int r = 0; r < counted; ++r)
                for (int c = 0; c < counted; ++c) {
                    int dense = 0, touched = 0;
                    for (int x = c * b; x < c * b + b; ++x) {
                        int kept = 0;
                        for (int y = r * b; y < r * b + b; ++y) {
                            const int row = y - row0, col = x - col0;
                            kept += row >= 0 && row < s && col >= 0 && col < s && keeps(row, col);
                        }
                        touched += kept > 0;
                        dense += kept / double(b) > 1. / 3;
                    }
                    if (touched > 0 && dense / double(touched) > 0.6)
                        mask[static_cast<size_t>((i * s / b + r) * blocks + j * s / b + c)] = 1;
                }
        }
    return mask;
}

TEST(Radial, EqualsTheRuleByElements) {
    std::mt19937 generator(11);
    const auto pick = [&](int low, int high) {
        return static_cast<uint32_t>(std::uniform_int_distribution(low, high)(generator));
    };
    for (int round = 0; round < 60; ++round) {
        RadialOptions o{.frames = pick(1, 9),
                        .tokens_per_frame = pick(1, 90),
                        .block = pick(0, 1) ? 16u : 24u,
                        .decay = 0.05 * pick(1, 40),
                        .sink_first_frame = pick(0, 1) == 1};
        o.tokens = o.frames * o.tokens_per_frame + pick(0, 50);
        EXPECT_EQ(radial(o).block_mask().visible, radial_by_elements(o)) << radial(o).key();
    }
}

TEST(Radial, Refuses) {
    refuses([] { radial({.frames = 0}); }, "at least 1");
    refuses([] { radial({.frames = 4, .tokens_per_frame = 10, .tokens = 39}); }, "= 40");
    refuses([] { radial({.frames = 4, .tokens_per_frame = 10, .decay = 0}); }, "decay");
    refuses([] { radial({.frames = 4, .tokens_per_frame = 10, .decay = NAN}); }, "decay");
}

// ---- block-sparse ----

TEST(BlockSparse, EqualsTheOracle) {
    const auto list = cases("block_sparse");
    if (list.empty()) GTEST_SKIP() << "no parity cases in " << testing::shared_folder();
    for (const Case& c : list) {
        const auto shape = c.weights.info("block_mask").shape;
        expect_rows(c, block_sparse({.heads = static_cast<uint32_t>(shape[0]),
                                     .q_blocks = static_cast<uint32_t>(shape[1]),
                                     .k_blocks = static_cast<uint32_t>(shape[2]),
                                     .block_q = c.number("block_q"),
                                     .block_k = c.number("block_k"),
                                     .mask = c.mask()}));
    }
}

TEST(BlockSparse, HeadsHaveTheirOwnMasks) {
    const Pattern one =
        block_sparse({.q_blocks = 1, .k_blocks = 2, .block_q = 8, .block_k = 4, .mask = {0, 9}});
    EXPECT_EQ(one.heads(), 0u);
    EXPECT_FALSE(one.keeps(7, 3));
    EXPECT_TRUE(one.keeps(7, 4));
    EXPECT_EQ(one.granularity(), (TileShape{8, 4}));

    const Pattern two = block_sparse({.heads = 3,
                                      .q_blocks = 1,
                                      .k_blocks = 2,
                                      .block_q = 8,
                                      .block_k = 4,
                                      .mask = {0, 9, 1, 0, 0, 1}});
    EXPECT_EQ(two.heads(), 3u);
    EXPECT_EQ(two.head(0).heads(), 0u);
    EXPECT_EQ(two.head(0).key(), one.key());
    EXPECT_EQ(two.head(2).key(), one.key());
    EXPECT_NE(two.head(1).key(), one.key());
    EXPECT_NE(two.key(), one.key());
    EXPECT_TRUE(two.head(1).keeps(0, 0));
    EXPECT_FALSE(two.head(1).keeps(0, 4));
    EXPECT_TRUE(two.keeps(0, 4));
}

TEST(BlockSparse, ListsAreMasks) {
    const Pattern lists = block_sparse(BlockSparseLists{
        .heads = 2, .q_blocks = 2, .k_blocks = 3, .key_blocks = {{2, 0}, {}, {1}, {0, 1, 2}}});
    const Pattern mask = block_sparse(BlockSparseOptions{
        .heads = 2, .q_blocks = 2, .k_blocks = 3, .mask = {1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1}});
    EXPECT_EQ(lists.key(), mask.key());
}

TEST(BlockSparse, RefusesWhatDoesNotFit) {
    refuses([] { block_sparse(BlockSparseOptions{}); }, "at least 1");
    refuses(
        [] {
            block_sparse({.q_blocks = 2, .k_blocks = 3, .mask = {1, 1, 1, 1, 1}});
        },
        "needs 6 values, found 5");
    refuses([] { block_sparse({.q_blocks = 2, .k_blocks = 3, .key_blocks = {{0}}}); }, "found 1");
    refuses([] { block_sparse({.q_blocks = 1, .k_blocks = 3, .key_blocks = {{3}}}); },
            "there are 3");
    const Pattern pattern =
        block_sparse({.q_blocks = 2, .k_blocks = 3, .mask = {1, 1, 1, 1, 1, 1}});
    pattern.accepts(65, 192);
    pattern.accepts(128, 129);
    refuses([&] { pattern.accepts(64, 192); }, "2×3 blocks of 64×64 found, expected 1×3");
    refuses([&] { pattern.accepts(129, 192); }, "expected 3×3");
    refuses([&] { pattern.accepts(128, 193); }, "expected 2×4");
    refuses([&] { pattern.head(0).head(0).accepts(1, 1); }, "expected 1×1");
}

TEST(BlockSparse, EqualMasksAndOnlyTheyHaveOneDigest) {
    std::set<std::string> digests;
    for (uint32_t rows : {1u, 2u, 4u})
        for (uint32_t on = 0; on < 4; ++on) {
            BlockMask mask{.block = {64, 64}, .rows = rows, .cols = 4 / rows};
            mask.visible.resize(4);
            mask.visible[on] = 1;
            digests.insert(digest(mask));
            mask.visible[on] = 7;  // any value but 0
            digests.insert(digest(mask));
            mask.block.k = 32;
            digests.insert(digest(mask));
        }
    EXPECT_EQ(digests.size(), 24u);
    EXPECT_EQ(digests.begin()->size(), 32u);
}

// ---- reordered ----

Reordered reordered_of(const Case& c) {
    ReorderedOptions o{.grid = {.shape = c.pattern.at("grid").get<std::vector<uint32_t>>()},
                       .text_tokens = c.number("text_tokens"),
                       .block_q = c.number("block_q"),
                       .block_k = c.number("block_k"),
                       .mask = c.mask()};
    for (const std::string order : c.pattern.at("orders"))
        o.orders.push_back(parse_axis_order(order));
    return reordered(o);
}

TEST(Reordered, EqualsTheOracle) {
    const auto list = cases("reordered");
    if (list.empty()) GTEST_SKIP() << "no parity cases in " << testing::shared_folder();
    for (const Case& c : list) expect_rows(c, reordered_of(c));
}

TEST(Reordered, OrdersNameTheOutermostAxisFirst) {
    const Grid grid{.shape = {2, 3, 4}};
    const auto tokens = reordered_tokens(grid, AxisOrder::whf, 5);
    ASSERT_EQ(tokens.size(), 29u);
    for (uint32_t i = 0; i < 5; ++i) EXPECT_EQ(tokens[i], i);
    for (uint32_t i = 0; i < 24; ++i)
        EXPECT_EQ(tokens[5 + i], 5 + (i % 2) * 12 + (i / 2 % 3) * 4 + i / 6) << i;
    for (const char* name : {"FHW", "FWH", "HWF", "HFW", "WHF", "WFH"}) {
        EXPECT_STREQ(name_of(parse_axis_order(name)), name);
        auto all = reordered_tokens(grid, parse_axis_order(name));
        EXPECT_EQ(std::set(all.begin(), all.end()).size(), 24u);
    }
    EXPECT_EQ(reordered_tokens(grid, AxisOrder::fhw)[7], 7u);
}

TEST(Reordered, HeadsShareWhatIsEqual) {
    const ReorderedOptions o{.grid = {.shape = {2, 3, 4}},
                             .orders = {AxisOrder::fhw, AxisOrder::wfh, AxisOrder::fhw},
                             .text_tokens = 2,
                             .block_q = 16,
                             .block_k = 16,
                             .mask = {1, 0, 1, 1}};
    const Pattern pattern = reordered(o);
    EXPECT_EQ(pattern.heads(), 3u);
    EXPECT_EQ(pattern.grid().tokens(), 26u);
    EXPECT_EQ(pattern.head(0).key(), pattern.head(2).key());
    EXPECT_NE(pattern.head(0).key(), pattern.head(1).key());
    const auto order = reordered_tokens(o.grid, AxisOrder::wfh, 2);
    for (uint32_t q = 0; q < 26; ++q)
        for (uint32_t k = 0; k < 26; ++k)
            EXPECT_EQ(pattern.head(1).keeps(order[q], order[k]), q >= 16 || k < 16);
}

TEST(Reordered, RefusesWhatDoesNotFit) {
    const Grid grid{.shape = {2, 8, 8}};
    refuses([] { parse_axis_order("fhw"); }, "FHW, FWH");
    refuses([] { parse_axis_order("FFH"); }, "expected one of");
    refuses(
        [] {
            reordered({.grid = {.shape = {8, 8}}, .orders = {AxisOrder::fhw}});
        },
        "found 8x8");
    refuses([&] { reordered({.grid = grid}); }, "order");
    refuses(
        [&] {
            reordered({.grid = grid,
                       .orders = {AxisOrder::fhw, AxisOrder::fwh},
                       .mask = std::vector<uint8_t>(12)});
        },
        "needs 8 or 4 values, found 12");
}

// ---- disc ----

TEST(Disc, EqualsTheOracle) {
    const auto list = cases("disc");
    if (list.empty()) GTEST_SKIP() << "no parity cases in " << testing::shared_folder();
    for (const Case& c : list)
        expect_rows(c, disc({.shape = c.pattern.at("grid").get<std::vector<uint32_t>>()},
                            c.pattern.at("radius"), c.number("text_tokens")));
}

TEST(Disc, SeesWhatIsNearerThanTheRadius) {
    const Pattern pattern = disc({.shape = {9, 13}}, 5, 2);
    EXPECT_EQ(pattern.grid().tokens(), 119u);
    for (uint32_t q = 0; q < 119; ++q)
        for (uint32_t k = 0; k < 119; ++k) {
            const int dy = int(q / 13) - int(k / 13), dx = int(q % 13) - int(k % 13);
            EXPECT_EQ(pattern.keeps(q, k), q >= 117 || k >= 117 || dy * dy + dx * dx < 25);
        }
    refuses([] { disc({.shape = {9}}, 5); }, "found 9");
    refuses([] { disc({.shape = {9, 9}}, 0); }, "found 0");
}

// ---- identity ----

TEST(Identity, ImageTokensSeeThemselvesAndText) {
    const Pattern pattern = identity({.tokens = 5, .text_before = 2, .text_after = 3});
    EXPECT_EQ(pattern.grid().tokens(), 10u);
    for (uint32_t q = 0; q < 10; ++q)
        for (uint32_t k = 0; k < 10; ++k) {
            const bool text = q < 2 || q >= 7 || k < 2 || k >= 7;
            EXPECT_EQ(pattern.keeps(q, k), text || q == k) << q << " " << k;
        }
    refuses([] { identity({.text_after = 3}); }, "1 to 16777216 tokens");
}

// ---- frames ----

TEST(Frames, AQuerySeesItsOwnAndThoseThatAreNamed) {
    const auto of = [](const char* names) {
        return frames({.shape = {5, 2, 3}}, parse_frames(names, ','));
    };
    const auto seen_by = [](const Frames& pattern, uint32_t frame) {
        std::vector<uint32_t> seen;
        for (uint32_t k = 0; k < 30; ++k)
            if (pattern.keeps(frame * 6 + 2, k)) seen.push_back(k / 6);
        EXPECT_EQ(seen.size() % 6, 0u);
        seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
        return seen;
    };
    using Seen = std::vector<uint32_t>;
    EXPECT_EQ(seen_by(of("none"), 3), Seen{3});
    EXPECT_EQ(seen_by(of("first,previous"), 3), (Seen{0, 2, 3}));
    EXPECT_EQ(seen_by(of("first,previous"), 0), Seen{0});
    EXPECT_EQ(seen_by(of("next,last"), 1), (Seen{1, 2, 4}));
    EXPECT_EQ(seen_by(of("next,middle"), 4), (Seen{2, 4}));
    // What a tile's cover says is what its pairs say.
    for (const char* names : {"none", "first,previous", "middle,next"}) {
        const Frames pattern = of(names);
        for (const uint32_t q : {0u, 4u, 12u, 22u})
            for (uint32_t k = 0; k < 26; k += 2) {
                uint32_t kept = 0;
                for (uint32_t i = 0; i < 4; ++i)
                    for (uint32_t j = 0; j < 4; ++j) kept += pattern.keeps(q + i, k + j);
                const Cover expected = kept == 0    ? Cover::none
                                       : kept == 16 ? Cover::full
                                                    : Cover::partial;
                EXPECT_EQ(pattern.cover({q, q + 4}, {k, k + 4}), expected) << q << " " << k;
            }
    }
    EXPECT_NE(of("first").key(), of("middle").key());
    refuses([] { parse_frames("first,second", ','); }, "\"second\" found in \"first,second\"");
    refuses([] { parse_frames("", ','); }, "expected none, or some of first, middle");
    refuses([] { frames({}, {}); }, "frames first");
}

}  // namespace
}  // namespace fovea
