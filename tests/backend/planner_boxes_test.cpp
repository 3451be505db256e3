/// Lists in boxes: the same bits as keeps() says, few blocks, full ones where the sizes allow it.

#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "backend/error.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/perfect.h"
#include "backend/patterns/radial.h"
#include "tests/backend/block_list_testing.h"

namespace fovea {
namespace {

using testing::expect_equals_keeps;
using testing::kTiles;

struct RandomNeighborhood {
    std::mt19937 generator;
    uint32_t pick(uint32_t low, uint32_t high) {
        return std::uniform_int_distribution(low, high)(generator);
    }
    NeighborhoodAxis axis(uint32_t longest) {
        NeighborhoodAxis a{.length = pick(1, longest)};
        a.dilation = pick(0, 1) ? 1 : pick(1, std::min(a.length, 4u));
        a.window = pick(0, 3) ? pick(1, a.length / a.dilation) : a.length / a.dilation;
        a.stride = pick(0, 1) ? 1 : pick(0, 1) ? a.window : pick(1, a.window);
        a.causal = pick(0, 3) == 0;
        return a;
    }
    Neighborhood operator()(uint32_t rank, uint32_t longest) {
        Grid grid;
        NeighborhoodOptions o;
        for (uint32_t i = 0; i < rank; ++i) {
            const NeighborhoodAxis a = axis(longest);
            grid.shape.push_back(a.length);
            o.window.push_back(a.window);
            o.stride.push_back(a.stride);
            o.dilation.push_back(a.dilation);
            o.causal.push_back(a.causal);
        }
        return neighborhood(grid, o);
    }
};

TEST(PlanBoxes, NeighborhoodListsEqualKeeps) {
    RandomNeighborhood random{std::mt19937(5)};
    for (int round = 0; round < 90; ++round) {
        const uint32_t rank = random.pick(1, 3), longest = rank == 1 ? 300 : rank == 2 ? 20 : 8;
        const Neighborhood pattern = random(rank, longest);
        const auto n = static_cast<uint32_t>(pattern.grid().tokens());
        const TileShape tile = kTiles[random.pick(0, std::size(kTiles) - 1)];
        expect_equals_keeps(pattern, tile, n, n, random.pick(0, 1) * random.pick(1, 80));
        const auto costs = pattern.box_costs(tile);
        const Boxes boxes = costs[random.pick(0, static_cast<uint32_t>(costs.size()) - 1)].boxes;
        expect_equals_keeps(pattern.blocks(tile, boxes), pattern, tile, n, n, 0);
        if (HasFatalFailure()) return;
    }
}

TEST(PlanBoxes, DiscListsEqualKeepsInAnyBoxes) {
    for (const TileShape tile : {TileShape{16, 16}, {64, 32}, {7, 5}}) {
        const Disc pattern = disc({.shape = {13, 18}}, 4.5, 11);
        for (const BoxCost& cost : pattern.box_costs(tile)) {
            const BlockList list = pattern.blocks(tile, cost.boxes);
            expect_equals_keeps(list, pattern, tile, 245, 245, 0);
            EXPECT_EQ(list.visited_blocks(), cost.visited);
            EXPECT_EQ(list.query_tiles(), cost.query_tiles);
            EXPECT_EQ(list.key_tiles(), cost.key_tiles);
        }
    }
}

/// A user's: keys of the query's row and column.
struct Cross {
    std::vector<uint32_t> shape;
    bool keeps(uint32_t q, uint32_t k) const {
        const uint32_t columns = shape.back();
        return q / columns == k / columns || q % columns == k % columns;
    }
    Grid grid() const { return {.shape = shape}; }
    std::string key() const { return "cross"; }
};

TEST(PlanBoxes, RulesOfUsersAreCutIntoBoxes) {
    for (const TileShape tile : kTiles) {
        expect_equals_keeps(Cross{{13, 18}}, tile, 234, 234, 0);
        expect_equals_keeps(Cross{{13, 18}}, tile, 234, 234, 20);
        expect_equals_keeps(Cross{{3, 9, 10}}, tile, 270, 270, 0);
    }
    const BlockList list = block_list(Cross{{64, 64}}, {64, 64}, 4096, 4096);
    EXPECT_EQ(list.visited_share(), 15 / 64.);  // in rows of 64: all
}

TEST(PlanBoxes, CostsAreThoseOfTheLists) {
    RandomNeighborhood random{std::mt19937(6)};
    for (int round = 0; round < 30; ++round) {
        const Neighborhood pattern = random(3, 12);
        const TileShape tile{16, 32};
        const auto costs = pattern.box_costs(tile);
        EXPECT_EQ(costs.size(), 15u * 21);
        uint64_t last = 0;
        for (const BoxCost& cost : costs) {
            EXPECT_GE(cost.visited, last);
            last = cost.visited;
        }
        for (const BoxCost& cost : {costs.front(), costs[100], costs.back()}) {
            const BlockList list = pattern.blocks(tile, cost.boxes);
            EXPECT_EQ(list.visited_blocks(), cost.visited) << pattern.key();
            EXPECT_EQ(list.full_blocks(), cost.full) << pattern.key();
            EXPECT_EQ(list.query_tiles(), cost.query_tiles);
            EXPECT_EQ(list.key_tiles(), cost.key_tiles);
        }
        EXPECT_EQ(pattern.blocks(tile).visited_blocks(), costs.front().visited);
    }
}

TEST(PlanBoxes, OneAxisAndWholeRowsNeedNoOrder) {
    EXPECT_TRUE(neighborhood({.shape = {200}}, {.window = {31}}).blocks({64, 16}).q_order.empty());
    EXPECT_FALSE(neighborhood({.shape = {200}}, {.window = {31}, .dilation = {2}})
                     .blocks({64, 16})
                     .q_order.empty());
    const auto rows = neighborhood({.shape = {32, 64}}, {.window = {8, 64}, .stride = {8, 64}});
    const BlockList list = rows.blocks({64, 64}, {.q = {1, 1, 64}, .k = {1, 1, 64}});
    EXPECT_TRUE(list.q_order.empty());
    EXPECT_TRUE(list.masks.empty());
    EXPECT_EQ(list.visited_share(), 0.25);
}

TEST(PlanBoxes, DilatedAxesVisitTheirGroupsOnly) {
    const auto pattern =
        neighborhood({.shape = {64, 64}}, {.window = {16, 16}, .dilation = {4, 4}});
    const BlockList list = pattern.blocks({64, 64});
    EXPECT_EQ(list.visited_share(), 1 / 16.);  // the windows are the groups
    EXPECT_TRUE(list.masks.empty());
}

TEST(PlanBoxes, BoxesOfOtherSizesAreErrors) {
    const auto pattern = neighborhood({.shape = {8, 8}}, {.window = {3, 3}});
    EXPECT_THROW(pattern.blocks({16, 16}, {.q = {1, 4, 4}, .k = {1, 4, 8}}), Error);
    EXPECT_THROW(pattern.blocks({16, 16}, {.q = {1, 4, 2}, .k = {1, 4, 4}}), Error);
}

/// The sufficient condition of the paper for one axis without dilation or causality.
bool paper_says(const NeighborhoodAxis& a, uint32_t q_tile, uint32_t k_tile) {
    if (a.window == a.length) return a.length % k_tile == 0;  // else the last tile sticks out
    const uint32_t last = a.length - a.window;
    return a.stride % q_tile == 0 && a.stride % k_tile == 0 && a.window % k_tile == 0 &&
           last % k_tile == 0 && a.window / 2 >= a.stride / 2 &&
           (a.window / 2 - a.stride / 2) % k_tile == 0;
}

TEST(PlanBoxes, PerfectBlockSparsityIsWhatTheListsShow) {
    RandomNeighborhood random{std::mt19937(8)};
    int perfect = 0, paper = 0;
    for (int round = 0; round < 4000; ++round) {
        const uint32_t scale = 1u << random.pick(0, 3);  // random sizes are hardly ever perfect
        NeighborhoodAxis a = random.axis(12);
        a.length *= scale;
        a.window *= scale;
        a.stride *= scale;
        const uint32_t q_tile = 1u << random.pick(0, 4), k_tile = 1u << random.pick(0, 4);
        const auto pattern = neighborhood({.shape = {a.length}}, {.window = {a.window},
                                                                  .stride = {a.stride},
                                                                  .dilation = {a.dilation},
                                                                  .causal = {a.causal}});
        const BlockList list = pattern.blocks({q_tile, k_tile});
        const bool shown = list.full_blocks() == list.visited_blocks();
        ASSERT_EQ(a.perfectly_block_sparse(q_tile, k_tile), shown)
            << pattern.key() << " " << q_tile << " " << k_tile;
        perfect += shown;
        if (a.dilation > 1 || a.causal || !paper_says(a, q_tile, k_tile)) continue;
        ++paper;
        EXPECT_TRUE(shown) << pattern.key() << " " << q_tile << " " << k_tile;
    }
    EXPECT_GT(perfect, 400);
    EXPECT_GT(paper, 200);
}

TEST(PlanBoxes, PublishedConfigurationsArePerfect) {
    const auto video =
        neighborhood({.shape = {30, 48, 80}}, {.window = {18, 24, 24}, .stride = {16, 8, 8}});
    const auto picture =
        neighborhood({.shape = {256, 256}}, {.window = {80, 80}, .stride = {16, 16}});
    for (const auto* pattern : {&video, &picture})
        for (const TileShape tile : {TileShape{64, 64}, {128, 64}, {128, 128}}) {
            const BlockList list = pattern->blocks(tile);
            EXPECT_TRUE(list.masks.empty()) << pattern->key();
            EXPECT_EQ(list.visited_share(), list.kept_share()) << pattern->key();
        }
}

TEST(PlanBoxes, SettingsNearTheAskedArePerfect) {
    const Grid grid{.shape = {30, 48, 80}};
    const auto asked = neighborhood(grid, {.window = {18, 24, 24}});
    const auto settings = perfect_settings(asked, {128, 64});
    ASSERT_EQ(settings.size(), 6u);
    double last = 0;
    for (const PerfectSetting& setting : settings) {
        const auto pattern = neighborhood(grid, setting.options);
        const BlockList list = pattern.blocks({128, 64}, setting.cost.boxes);
        EXPECT_TRUE(list.masks.empty()) << pattern.key();
        EXPECT_EQ(list.visited_blocks(), setting.cost.visited);
        EXPECT_EQ(list.query_tiles(), setting.cost.query_tiles);
        EXPECT_NEAR(list.kept_share(), setting.kept_share, 1e-12);
        EXPECT_GE(setting.distance, last);
        last = setting.distance;
    }
    EXPECT_GT(settings[0].distance, 0);

    const auto perfect = neighborhood(grid, {.window = {18, 24, 24}, .stride = {16, 8, 8}});
    EXPECT_EQ(perfect_settings(perfect, {128, 64}, 1).at(0).distance, 0);
    EXPECT_EQ(perfect_settings(perfect, {128, 64}, 1)[0].options.stride,
              (std::vector<uint32_t>{16, 8, 8}));
}

template <typename Make>
BlockList timed(const char* name, Make make) {
    const auto begin = std::chrono::steady_clock::now();
    BlockList list = make();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    printf("%s: %.3f s, %.1f MiB, %.2f %% of the blocks, %.2f %% of the pairs\n", name,
           seconds.count(), static_cast<double>(list.bytes()) / (1 << 20),
           100 * list.visited_share(), 100 * list.kept_share());
    EXPECT_LT(list.bytes(), uint64_t{64} << 20) << name;
    return list;
}

TEST(PlanBoxes, VideoOfHundredThousandTokensFits) {
    for (const bool strided : {false, true})
        for (const TileShape tile : {TileShape{16, 16}, {64, 16}, {64, 64}, {128, 64}}) {
            NeighborhoodOptions o{.window = {18, 24, 24}};
            if (strided) o.stride = {16, 8, 8};
            const BlockList list = timed(strided ? "strided window" : "sliding window", [&] {
                return block_list(neighborhood({.shape = {30, 48, 80}}, o), tile, 115200, 115200);
            });
            EXPECT_NEAR(list.kept_share(), 18 * 24 * 24 / 115200., 1e-12);
            EXPECT_LT(list.visited_share(), 0.14);
        }
    for (const TileShape tile : {TileShape{64, 16}, {64, 64}, {128, 64}})
        timed("radial", [&] {
            return block_list(radial({.frames = 33,
                                      .tokens_per_frame = 3600,
                                      .tokens = 120064,
                                      .block = 64,
                                      .decay = 0.95}),
                              tile, 120064, 120064);
        });
    timed("disc", [&] {
        return block_list(disc({.shape = {256, 256}}, 16, 512), {64, 64}, 66048, 66048);
    });
}

}  // namespace
}  // namespace fovea
