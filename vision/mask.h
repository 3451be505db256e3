#pragma once

#include <cstdint>
#include <vector>

#include "vision/image.h"

/// Holes of pictures: reading them, their parts, and the tiles in which a model fills them.
namespace fovea {

/// Pixels from (left, top) to before (right, bottom).
struct Box {
    int left = 0, top = 0, right = 0, bottom = 0;
    int width() const { return right - left; }
    int height() const { return bottom - top; }
    bool contains(const Box& other) const;
    Box united(const Box& other) const;  ///< the smallest that holds both
    bool operator==(const Box&) const = default;
};

/// Which pixels are to be filled.
struct Mask {
    int width = 0, height = 0;
    std::vector<uint8_t> hole;  ///< (height, width): 1 is filled, 0 stays

    uint8_t& at(int x, int y) { return hole[index(x, y)]; }
    uint8_t at(int x, int y) const { return hole[index(x, y)]; }
    int64_t count() const;
    Box box() const;  ///< around the hole; empty without one

  private:
    size_t index(int x, int y) const {
        return static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x);
    }
};

/// White is the hole: pixels whose mean of the channels is half or more.
Mask mask_of(const Image& image);
/// Pixels that are less than half opaque; opacity as load_opacity() gives it, or empty: no hole.
Mask mask_of(const std::vector<float>& opacity, int width, int height);
/// The part of a box that lies in the picture.
Mask mask_of(const Box& box, int width, int height);

/// White where the hole is, else black.
Image picture_of(const Mask& mask);

/// Parts of the hole that touch nowhere, not even at corners, in the order of their first pixels.
struct HoleParts {
    std::vector<Box> boxes;
    std::vector<int32_t> part;  ///< (height, width): index into boxes, −1 outside the hole
};
HoleParts parts_of(const Mask& mask);

/// What a model can draw at once. Sides in its pixels.
struct TileLimits {
    int usual = 256;    ///< side unless the hole or the picture says otherwise
    int most = 256;     ///< larger holes are drawn smaller
    int least = 128;    ///< smaller pictures are continued by reflection
    int multiple = 16;  ///< of sides
    int margin = 32;    ///< around the hole at least, where the picture goes on
};

/// A part of the picture that is worked on at once.
struct Tile {
    Box window;         ///< of the picture; beyond its edges it is reflected
    int width, height;  ///< of the same in the model's pixels
    Mask fills;         ///< (window): what of the hole it fills
};

/// Tiles, one after the other, that fill the whole hole: parts that fit together are filled
/// together. A hole that a later tile fills is a hole in earlier ones too, but stays empty there.
std::vector<Tile> plan_tiles(const Mask& mask, const TileLimits& limits = {});

/// Windows of a picture or mask; beyond the edges reflected, the outermost pixels twice.
Image crop(const Image& image, const Box& window);
Mask crop(const Mask& mask, const Box& window);

/// 1 where any pixel of a cell × cell block, its share of a mask resized to width × height, is in
/// the hole: (height / cell, width / cell).
Mask coarsen(const Mask& mask, int width, int height, int cell);

}  // namespace fovea
