#include "vision/mask.h"

#include <gmock/gmock.h>
#include <stb_image_write.h>

#include <array>
#include <cmath>
#include <string_view>

#include "tests/testing.h"
#include "tests/vision/temporary_folder.h"
#include "vision/file.h"
#include "vision/membrane.h"

/// Holes written as text, '#' is a hole.
namespace fovea {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

Mask mask_from(const std::vector<std::string_view>& rows) {
    Mask mask{static_cast<int>(rows[0].size()), static_cast<int>(rows.size()), {}};
    for (const auto& row : rows)
        for (const char c : row) mask.hole.push_back(c == '#');
    return mask;
}

std::vector<std::string> rows_of(const Mask& mask) {
    std::vector<std::string> rows(static_cast<size_t>(mask.height));
    for (int y = 0; y < mask.height; ++y)
        for (int x = 0; x < mask.width; ++x)
            rows[static_cast<size_t>(y)] += mask.at(x, y) ? '#' : '.';
    return rows;
}

/// value(x, y) in all channels, the last of them negated.
template <typename Value>
Image image_of(int width, int height, const Value& value) {
    Image image{width, height, {}};
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) {
            const auto v = static_cast<float>(value(x, y));
            image.rgb.insert(image.rgb.end(), {v, v, -v});
        }
    return image;
}

TEST(Mask, WhiteIsTheHole) {
    Image image{4, 1, {1, 1, 1, 0.49f, 0.49f, 0.49f, 0.5f, 0.5f, 0.5f, 1, 0.6f, 0}};
    EXPECT_THAT(rows_of(mask_of(image)), ElementsAre("#.##"));
    EXPECT_THAT(rows_of(mask_of(std::vector<float>{1, 0, 0.49f, 0.5f}, 4, 1)), ElementsAre(".##."));
    EXPECT_EQ(mask_of(std::vector<float>{}, 4, 1).count(), 0);
    EXPECT_THAT(rows_of(mask_of(Box{2, -3, 9, 1}, 4, 2)), ElementsAre("..##", "...."));
}

TEST(Mask, TransparentPixelsAreReadFromThePicture) {
    TemporaryFolder folder;
    const std::array<uint8_t, 16> rgba{10, 20, 30, 255, 10, 20, 30, 0,
                                       10, 20, 30, 100, 10, 20, 30, 200};
    std::vector<std::byte> png;
    stbi_write_png_to_func(
        [](void* out, void* data, int size) {
            const auto* bytes = static_cast<const std::byte*>(data);
            static_cast<std::vector<std::byte>*>(out)->assign(bytes, bytes + size);
        },
        &png, 4, 1, 4, rgba.data(), 16);
    write_file(folder / "a.png", png);
    const auto opacity = load_opacity(folder / "a.png");
    EXPECT_THAT(rows_of(mask_of(opacity, 4, 1)), ElementsAre(".##."));
    save_png(folder / "b.png", load_image(folder / "a.png"));
    EXPECT_THAT(load_opacity(folder / "b.png"), SizeIs(0));
}

TEST(Mask, PartsTouchNowhere) {
    const auto parts = parts_of(mask_from({"##...#",  //
                                           "..#..#",  // corners touch
                                           "......",  //
                                           "#....."}));
    EXPECT_THAT(parts.boxes, ElementsAre(Box{0, 0, 3, 2}, Box{5, 0, 6, 2}, Box{0, 3, 1, 4}));
    EXPECT_THAT(parts.part, ElementsAre(0, 0, -1, -1, -1, 1,     //
                                        -1, -1, 0, -1, -1, 1,    //
                                        -1, -1, -1, -1, -1, -1,  //
                                        2, -1, -1, -1, -1, -1));
}

TEST(Mask, CellsWithAnyPixelAreOpen) {
    const Mask mask = mask_from({"....", "...#", "....", "#..."});
    EXPECT_THAT(rows_of(coarsen(mask, 4, 4, 2)), ElementsAre(".#", "#."));
    // Twice as large a pixel is 2 × 2, half as large a part of one.
    EXPECT_THAT(rows_of(coarsen(mask, 8, 8, 2)), ElementsAre("....", "...#", "....", "#..."));
    EXPECT_THAT(rows_of(coarsen(mask, 2, 2, 1)), ElementsAre(".#", "#."));
    // 3 pixels over 4: the middle one lies in both cells.
    EXPECT_THAT(rows_of(coarsen(mask_from({".#."}), 4, 2, 2)), ElementsAre("##"));
}

TEST(Mask, WindowsReflectBeyondTheEdges) {
    const Mask mask = mask_from({"#..", "..."});
    EXPECT_THAT(rows_of(crop(mask, {-1, 0, 7, 3})),
                ElementsAre("##....##", "........", "........"));
    EXPECT_THAT(rows_of(crop(mask, {0, 0, 1, 5})), ElementsAre("#", ".", ".", "#", "#"));
    const Image image = image_of(3, 1, [](int x, int) { return x; });
    std::vector<float> red;
    const Image wide = crop(image, {-2, 0, 5, 1});
    for (size_t i = 0; i < 7; ++i) red.push_back(wide.rgb[3 * i]);
    EXPECT_THAT(red, ElementsAre(1, 0, 0, 1, 2, 2, 1));
}

TEST(Mask, TilesStandAroundTheirHoles) {
    const auto tiles = [](int width, int height, const std::vector<Box>& holes) {
        Mask mask = mask_of(Box{}, width, height);
        for (const Box& box : holes) {
            const Mask more = mask_of(box, width, height);
            for (size_t i = 0; i < mask.hole.size(); ++i) mask.hole[i] |= more.hole[i];
        }
        int64_t filled = 0;
        auto plan = plan_tiles(mask, {.most = 512});
        for (const Tile& tile : plan) filled += tile.fills.count();
        EXPECT_EQ(filled, mask.count());  // each pixel once: parts are whole
        return plan;
    };
    {  // As large as the model's, or smaller: the whole picture, however many holes.
        const auto plan = tiles(256, 200, {{0, 0, 10, 10}, {240, 190, 256, 200}});
        ASSERT_THAT(plan, SizeIs(1));
        EXPECT_EQ(plan[0].window, (Box{0, 0, 256, 208}));
        EXPECT_EQ(plan[0].width, 256);
        EXPECT_EQ(plan[0].height, 208);
    }
    {  // Too small for the model: 128 × 128.
        const auto plan = tiles(100, 60, {{10, 10, 20, 20}});
        ASSERT_THAT(plan, SizeIs(1));
        EXPECT_EQ(plan[0].window, (Box{0, 0, 128, 128}));
    }
    {  // Far apart: two; the window is moved into the picture.
        const auto plan = tiles(1000, 800, {{20, 20, 120, 60}, {900, 700, 990, 790}});
        ASSERT_THAT(plan, SizeIs(2));
        EXPECT_EQ(plan[0].window, (Box{0, 0, 256, 256}));
        EXPECT_EQ(plan[1].window, (Box{744, 544, 1000, 800}));
    }
    {  // Near each other: one around both.
        const auto plan = tiles(1000, 800, {{500, 400, 540, 440}, {600, 400, 640, 440}});
        ASSERT_THAT(plan, SizeIs(1));
        EXPECT_EQ(plan[0].window, (Box{442, 292, 698, 548}));
    }
    {  // Larger than the usual tile: a larger one, with margins.
        const auto plan = tiles(1000, 800, {{200, 200, 600, 400}});
        ASSERT_THAT(plan, SizeIs(1));
        EXPECT_EQ(plan[0].window, (Box{144, 164, 656, 436}));
        EXPECT_EQ(plan[0].width, 512);  // 400 + 2 · 50, a multiple of 16
        EXPECT_EQ(plan[0].height, 272);
    }
}

TEST(Mask, LargeHolesAreDrawnSmaller) {
    const auto plan = plan_tiles(mask_of(Box{400, 300, 1600, 1100}, 2000, 1500), {.most = 512});
    ASSERT_THAT(plan, SizeIs(1));
    EXPECT_EQ(plan[0].width, 512);
    EXPECT_TRUE(plan[0].window.contains({400, 300, 1600, 1100}));
    const double across = static_cast<double>(plan[0].window.width()) / plan[0].width,
                 down = static_cast<double>(plan[0].window.height()) / plan[0].height;
    EXPECT_NEAR(across, 1500.0 / 512, 0.01);  // 1200 and an eighth on either side
    EXPECT_NEAR(across, down, 0.01);
    EXPECT_EQ(plan_tiles(mask_of(Box{400, 300, 1600, 1100}, 2000, 1500))[0].width, 256);
}

TEST(Membrane, IsHarmonic) {
    // x² − y² is the mean of its four neighbours on the grid, too.
    const Image expected = image_of(40, 30, [](int x, int y) { return (x * x - y * y) / 1000.0; });
    Mask mask = mask_of(Box{3, 4, 31, 27}, 40, 30);
    mask.at(10, 10) = 0;
    Image image = expected;
    for (size_t i = 0; i < mask.hole.size(); ++i)
        if (mask.hole[i]) image.rgb[3 * i] = NAN;
    EXPECT_TRUE(testing::close(membrane(image, mask).rgb, expected.rgb, {2e-5f, 0}));
}

TEST(Membrane, IsFreeAtThePicturesEdge) {
    // A column of knowns: constant beyond it, however far.
    const Image image = image_of(64, 9, [](int x, int) { return x < 10 ? 0.25 : 7; });
    const Image found = membrane(image, mask_of(Box{10, 0, 64, 9}, 64, 9));
    EXPECT_TRUE(
        testing::close(found.rgb, image_of(64, 9, [](int, int) { return 0.25; }).rgb, {1e-4f, 0}));
    // One pixel between 0, 1 and nothing.
    const Image line = image_of(3, 1, [](int x, int) { return x / 2; });
    EXPECT_FLOAT_EQ(membrane(line, mask_from({".#."})).rgb[3], 0.5f);
    EXPECT_THAT(membrane(image, mask_of(Box{0, 0, 64, 9}, 64, 9)).rgb,
                ::testing::Each(0.0f));  // nothing is known
}

TEST(Membrane, BlendTakesTheFillsGradients) {
    const auto picture = [](int x, int) { return 0.2 + 0.01 * x; };
    const Image image = image_of(30, 30, picture);
    const Mask mask = mask_of(Box{5, 5, 25, 25}, 30, 30);
    // The same, lighter: gone. A spot of its own: kept.
    const auto fill = [&](int x, int y) {
        return picture(x, y) + 0.3 + (x == 15 && y == 15 ? 0.1 : 0);
    };
    Image drawn = image_of(30, 30, fill), expected = image;
    expected.rgb[3 * (15 * 30 + 15)] += 0.1f;
    expected.rgb[3 * (15 * 30 + 15) + 1] += 0.1f;
    for (auto* one : {&drawn, &expected})
        for (size_t i = 2; i < one->rgb.size(); i += 3) one->rgb[i] = one->rgb[i - 1];
    Image source = image;
    for (size_t i = 2; i < source.rgb.size(); i += 3) source.rgb[i] = source.rgb[i - 1];
    const Image found = blend(source, drawn, mask);
    EXPECT_TRUE(testing::close(found.rgb, expected.rgb, {1e-5f, 0}));
    for (size_t i = 0; i < mask.hole.size(); ++i)
        if (!mask.hole[i]) {
            EXPECT_EQ(found.rgb[3 * i], source.rgb[3 * i]);
        }
}

TEST(Membrane, BlendLeavesWhatTheEdgeCuts) {
    // Half of one edge is another colour: a tenth of it reaches ten pixels in, less than that of
    // the membrane.
    const Image image = image_of(60, 60, [](int, int) { return 0.25; });
    const Mask mask = mask_of(Box{10, 10, 50, 50}, 60, 60);
    const Image drawn =
        image_of(60, 60, [](int x, int y) { return x < 20 && y > 15 && y < 45 ? 0.75 : 0.25; });
    const Image found = blend(image, drawn, mask);
    const auto at = [&](int x, int y) {
        return found.rgb[3 * (static_cast<size_t>(y) * 60 + static_cast<size_t>(x))];
    };
    EXPECT_LT(at(10, 30), 0.45f);  // drawn to what is beside it
    EXPECT_GT(at(19, 30), 0.68f);
    EXPECT_NEAR(at(40, 30), 0.25f, 0.02f);  // a membrane of the whole: 0.2
}

TEST(Membrane, SeamComparesTheEdgeWithWhatIsNear) {
    const Mask mask = mask_from({"..........######"});
    // Steps of 1 everywhere, of 5 at the edge, of 100 far away.
    Image image{16, 1, {}};
    float value = 0;
    for (int x = 0; x < 16; ++x) {
        value += (x == 10 ? 5.0f : x == 2 ? 100.0f : 1.0f) / 255;
        image.rgb.insert(image.rgb.end(), 3, value);
    }
    const Seam seam = seam_of(image, mask);
    EXPECT_NEAR(seam.across, 5, 1e-4);
    EXPECT_NEAR(seam.nearby, 1, 1e-4);
    EXPECT_EQ(seam_of(image, mask_of(Box{}, 16, 1)).across, 0);
}

}  // namespace
}  // namespace fovea
