#include <gmock/gmock.h>

#include <random>
#include <set>

#include "backend/error.h"
#include "backend/patterns/dense.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/registry.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

struct Axis {
    int length, window, stride, dilation;
    bool causal;
};

/// NATTEN's rule of one axis, the start of the window moved step by step as its sources do.
bool axis_keeps(const Axis& a, int q, int k) {
    if (q % a.dilation != k % a.dilation) return false;
    const int i = q / a.dilation, j = k / a.dilation;
    int length = 0;
    for (int t = q % a.dilation; t < a.length; t += a.dilation) ++length;
    const int left = a.window / 2, right = a.window / 2 + a.window % 2 - 1;
    if (a.causal) {
        const int leader = std::min(i / a.stride * a.stride + a.stride - 1, length - 1);
        return j >= std::max(leader - a.window + 1, 0) && j < std::min(i + 1, length);
    }
    const int leader = std::min(i / a.stride * a.stride + a.stride / 2, length - 1);
    int start = std::max(leader - left, 0);
    if (leader + right >= length) start += length - 1 - right - leader;
    return j >= start && j < start + a.window;
}

TEST(Neighborhood, EqualsTheRuleOnRandomConfigurations) {
    std::mt19937 generator(7);
    const auto pick = [&](int low, int high) {
        return std::uniform_int_distribution<int>(low, high)(generator);
    };
    for (int round = 0; round < 200; ++round) {
        const int rank = pick(1, 3), most = rank == 1 ? 60 : rank == 2 ? 12 : 6;
        std::vector<Axis> axes;
        Grid grid;
        NeighborhoodOptions options;
        for (int i = 0; i < rank; ++i) {
            Axis a{.length = pick(1, most)};
            a.dilation = pick(1, std::min(a.length, 3));
            a.window = pick(1, a.length / a.dilation);
            a.stride = pick(1, a.window);
            a.causal = pick(0, 2) == 0;
            axes.push_back(a);
            grid.shape.push_back(static_cast<uint32_t>(a.length));
            options.window.push_back(static_cast<uint32_t>(a.window));
            options.stride.push_back(static_cast<uint32_t>(a.stride));
            options.dilation.push_back(static_cast<uint32_t>(a.dilation));
            options.causal.push_back(a.causal);
        }
        const Neighborhood pattern = neighborhood(grid, options);
        const auto tokens = static_cast<uint32_t>(grid.tokens());
        for (uint32_t q = 0; q < tokens; ++q) {
            for (uint32_t k = 0; k < tokens; ++k) {
                bool expected = true;
                uint32_t qs = q, ks = k;
                for (int i = rank; i-- > 0;) {
                    const auto n = grid.shape[static_cast<size_t>(i)];
                    expected =
                        expected && axis_keeps(axes[static_cast<size_t>(i)],
                                               static_cast<int>(qs % n), static_cast<int>(ks % n));
                    qs /= n;
                    ks /= n;
                }
                ASSERT_EQ(pattern.keeps(q, k), expected) << pattern.key() << " " << q << " " << k;
            }
        }
    }
}

TEST(Neighborhood, EveryQuerySeesExactlyTheWindow) {
    const auto pattern = neighborhood({.shape = {9, 11}}, {.window = {4, 7}});
    for (uint32_t q = 0; q < 99; ++q) {
        uint32_t seen = 0;
        for (uint32_t k = 0; k < 99; ++k) seen += pattern.keeps(q, k);
        EXPECT_EQ(seen, 28u) << q;
    }
}

TEST(Neighborhood, WindowOfTheAxisLengthIsTheWholeAxis) {
    const auto pattern = neighborhood({.shape = {5, 6}}, {.window = {5, 6}});
    for (uint32_t q = 0; q < 30; ++q)
        for (uint32_t k = 0; k < 30; ++k) EXPECT_TRUE(pattern.keeps(q, k));
}

TEST(Neighborhood, RefusesWhatNattenRefuses) {
    const Grid grid{.shape = {8, 8}};
    const auto refuses = [&](const NeighborhoodOptions& options, const char* why) {
        EXPECT_THAT([&] { neighborhood(grid, options); }, ThrowsMessage<Error>(HasSubstr(why)));
    };
    refuses({.window = {3}}, "one value per axis");
    refuses({.window = {3, 9}}, "window × dilation");
    refuses({.window = {3, 5}, .dilation = {1, 2}}, "window × dilation");
    refuses({.window = {0, 3}}, "window × dilation");
    refuses({.window = {3, 3}, .stride = {1, 4}}, "stride");
    refuses({.window = {3, 3}, .stride = {0, 1}}, "stride");
    EXPECT_THROW(neighborhood({.shape = {2, 2, 2, 2}}, {.window = {1, 1, 1, 1}}), Error);
    EXPECT_THROW(neighborhood({}, {}), Error);
}

TEST(Pattern, KeysAreUnique) {
    const Grid grid{.shape = {8, 8}}, other{.shape = {4, 16}};
    std::set<std::string> keys{
        dense().key(),
        neighborhood(grid, {.window = {3, 3}}).key(),
        neighborhood(other, {.window = {3, 3}}).key(),
        neighborhood(grid, {.window = {3, 4}}).key(),
        neighborhood(grid, {.window = {3, 3}, .stride = {1, 2}}).key(),
        neighborhood(grid, {.window = {3, 3}, .dilation = {1, 2}}).key(),
        neighborhood(grid, {.window = {3, 3}, .causal = {true, false}}).key(),
    };
    EXPECT_EQ(keys.size(), 7u);
}

TEST(Registry, ParsesSpecs) {
    const Grid grid{.shape = {16, 24}};
    EXPECT_EQ(parse_pattern("dense", grid).key(), "dense");
    EXPECT_EQ(parse_pattern("neighborhood:7x5", grid).key(),
              neighborhood(grid, {.window = {7, 5}}).key());
    EXPECT_EQ(
        parse_pattern("neighborhood:7x5:stride=2x1:dilation=1x3:causal=0x1", grid).key(),
        neighborhood(
            grid, {.window = {7, 5}, .stride = {2, 1}, .dilation = {1, 3}, .causal = {false, true}})
            .key());
    EXPECT_EQ(parse_pattern("neighborhood:3", grid).key(),
              neighborhood(grid, {.window = {3, 3}}).key());
    EXPECT_EQ(parse_pattern("neighborhood:0x3", grid).key(),
              neighborhood(grid, {.window = {16, 3}}).key());
    EXPECT_THAT(pattern_help(), ::testing::Contains(HasSubstr("neighborhood")));
}

TEST(Registry, SaysWhatItDoesNotUnderstand) {
    const Grid grid{.shape = {16, 16}};
    const auto refuses = [&](const char* spec, const char* why) {
        EXPECT_THAT([&] { parse_pattern(spec, grid); }, ThrowsMessage<Error>(HasSubstr(why)))
            << spec;
    };
    refuses("", "neighborhood");
    refuses("nonsense:3", "neighborhood");
    refuses("dense:3", "name=value");
    refuses("neighborhood", "window");
    refuses("neighborhood:", "numbers");
    refuses("neighborhood:7x", "numbers");
    refuses("neighborhood:7xx7", "numbers");
    refuses("neighborhood:7x-1", "numbers");
    refuses("neighborhood:7x7x7", "2 axes");
    refuses("neighborhood:7x7:size=3", "size");
    refuses("neighborhood:7x7:stride=8x8", "stride");
}

}  // namespace
}  // namespace fovea
