#pragma once

#include "vision/mask.h"

/// What happens at the edge of a hole.
namespace fovea {

/// The image with its hole filled by the membrane that is fixed at the pixels around: Δf = 0, each
/// pixel the mean of its neighbours, to about 10⁻⁵. At the image's edges it is free. What was in
/// the hole does not matter; a hole without any pixel around it becomes 0.
Image membrane(const Image& image, const Mask& mask);

/// `image` with the hole filled from `fill`, a picture of the same size, shifted so that it meets
/// the image at the hole's edge (after Pérez, Gangnet and Blake, Poisson Image Editing, 2003): by
/// the membrane of the difference there as far as it is one of tone, within 0.04 of the edge's
/// median; the rest, where the edge cuts through what is drawn, fades within some three pixels.
/// Values in [0, 1]. Pixels outside the hole are the image's to the bit.
Image blend(const Image& image, const Image& fill, const Mask& mask);

/// Mean |difference| of neighbouring pixels over channels, in steps of 1/255.
struct Seam {
    double across;  ///< pairs with one pixel in the hole
    double nearby;  ///< other pairs up to four pixels from one of those
};
/// 0 and 0 where the hole has no edge.
Seam seam_of(const Image& image, const Mask& mask);

}  // namespace fovea
