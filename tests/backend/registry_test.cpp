#include "backend/patterns/registry.h"

#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/frames.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/neighborhood.h"
#include "backend/patterns/radial.h"

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

TEST(Registry, GivesNeighborhoodsAsSuch) {
    const auto found = parse_neighborhood("neighborhood:5:stride=2", kGrid);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->key(), parse_pattern("neighborhood:5:stride=2", kGrid).key());
    EXPECT_FALSE(parse_neighborhood("dense", kGrid).has_value());
    EXPECT_THROW(parse_neighborhood("neighborhood:99", kGrid), Error);
}

TEST(Registry, ParsesRadialDiscAndIdentity) {
    const Grid video{.shape = {6, 4, 5}};
    EXPECT_EQ(parse_pattern("radial:decay=0.2:block=64:sink=1:text=11", video).key(),
              Pattern(radial({.frames = 6,
                              .tokens_per_frame = 20,
                              .tokens = 131,
                              .block = 64,
                              .decay = 0.2,
                              .sink_first_frame = true}))
                  .key());
    EXPECT_EQ(parse_pattern("radial:frames=4", kGrid).key(),
              Pattern(radial({.frames = 4, .tokens_per_frame = 48})).key());
    EXPECT_EQ(parse_pattern("radial:0.2:block=64", video).key(),
              parse_pattern("radial:decay=0.2:block=64", video).key());
    EXPECT_EQ(parse_pattern("neighborhood:3x3x5:1x2x2", video).key(),
              parse_pattern("neighborhood:3x3x5:stride=1x2x2", video).key());
    EXPECT_EQ(parse_pattern("disc:2.5:text=3", kGrid).key(), Pattern(disc(kGrid, 2.5, 3)).key());
    EXPECT_EQ(parse_pattern("identity:text=3:before=2", kGrid).key(),
              Pattern(identity({.tokens = 192, .text_before = 2, .text_after = 3})).key());
    EXPECT_EQ(parse_pattern("frames:first+next", video).key(),
              Pattern(frames(video, {.first = true, .next = true})).key());
    EXPECT_EQ(parse_pattern("identity", kGrid).grid().tokens(), 192u);

    const auto refuses = [&](const char* spec, const char* why) {
        EXPECT_THAT([&] { parse_pattern(spec, kGrid); },
                    ::testing::ThrowsMessage<Error>(::testing::HasSubstr(why)))
            << spec;
    };
    refuses("radial:frames=5", "no whole frames");
    refuses("radial:decay=", "number");
    refuses("radial:0.2:decay=0.3", "twice");
    refuses("radial:wide", "number");
    refuses("radial:decay=0", "above 0");
    refuses("radial:block=0", "at least 1");
    refuses("radial:width=3", "expected frames, text, block, decay, sink");
    refuses("disc", "radius is missing");
    refuses("disc:x", "number");
    refuses("disc:-1", "above 0");
    refuses("disc:2:text=1:text=2", "twice");
    refuses("identity:7", "name=value");
    refuses("frames", "frames are missing");
    refuses("frames:first:last", "frames are missing");
    refuses("block_sparse:64", "fovea attention");
    refuses("reordered", "reordered()");
    EXPECT_THROW(parse_pattern("disc:3", video), Error);
    EXPECT_THROW(parse_pattern("neighborhood:3", {}), Error);
}

TEST(Registry, TokenCountsDoNotWrap) {
    const Grid video{.shape = {8, 8, 8}};
    const auto refuses = [](const char* spec, const Grid& grid, const char* why) {
        EXPECT_THAT([&] { parse_pattern(spec, grid); },
                    ::testing::ThrowsMessage<Error>(::testing::HasSubstr(why)))
            << spec;
    };
    refuses("radial:block=4294967295", video, "blocks of at most 16777216 tokens");
    refuses("radial:text=4294966784", video, "1 to 16777216 tokens");
    refuses("radial:text=4000000000", video, "1 to 16777216 tokens");
    refuses("radial:text=16000000:block=1", video, "at most 16384 of them");
    refuses("identity:text=4294967295", video, "1 to 16777216 tokens");
    refuses("identity:text=4294967295:before=4294967295", video, "1 to 16777216 tokens");
    refuses("disc:3:text=4294967290", kGrid, "1 to 16777216 tokens");
    refuses("disc:3", {.shape = {65536, 65537}}, "1 to 16777216 tokens");
    refuses("neighborhood:1", {.shape = {1u << 31, 1u << 31, 4}}, "1 to 16777216 tokens");
    refuses("radial", {.shape = {1u << 31, 1u << 31, 4}}, "1 to 16777216 tokens");
    EXPECT_EQ(parse_pattern("identity:text=16776704", video).grid().tokens(), 1u << 24);
}

TEST(Registry, RadialThatKeepsNothingIsAnError) {
    EXPECT_THAT(
        [] {
            parse_pattern("radial:frames=16", {.shape = {16, 16}});
        },
        ::testing::ThrowsMessage<Error>(::testing::HasSubstr("would see no key")));
    EXPECT_NO_THROW(parse_pattern("radial:frames=16:block=4", {.shape = {16, 16}}));
}

TEST(Registry, HelpNamesEveryPattern) {
    EXPECT_EQ(pattern_help().size(), 8u);
}

}  // namespace
}  // namespace fovea
