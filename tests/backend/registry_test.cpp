#include "backend/patterns/registry.h"

#include <gtest/gtest.h>

#include "backend/error.h"
#include "backend/patterns/neighborhood.h"

namespace fovea {
namespace {

const Grid kGrid{.shape = {12, 16}};

TEST(Registry, ParsesWhatTheMakersMake) {
    EXPECT_TRUE(parse_pattern("dense", kGrid).keeps(0, 191));
    const Pattern expected = neighborhood(
        kGrid, {.window = {5, 7}, .stride = {2, 3}, .dilation = {2, 1}, .causal = {false, true}});
    EXPECT_EQ(parse_pattern("neighborhood:5x7:stride=2x3:dilation=2x1:causal=0x1", kGrid).key(),
              expected.key());
    EXPECT_EQ(parse_pattern("neighborhood:5", kGrid).key(),
              Pattern(neighborhood(kGrid, {.window = {5, 5}})).key());
    EXPECT_EQ(parse_pattern("neighborhood:0x7", kGrid).key(),
              Pattern(neighborhood(kGrid, {.window = {12, 7}})).key());
}

TEST(Registry, BadSpecsAreErrors) {
    for (const char* spec : {"", "radia", "dense:1", "neighborhood", "neighborhood:",
                             "neighborhood:7x", "neighborhood:7x7x7", "neighborhood:7x7:strid=2",
                             "neighborhood:7x7:stride", "neighborhood:99x7", "neighborhood:-1"})
        EXPECT_THROW(parse_pattern(spec, kGrid), Error) << spec;
}

TEST(Registry, HelpNamesEveryPattern) {
    EXPECT_EQ(pattern_help().size(), 2u);
}

}  // namespace
}  // namespace fovea
