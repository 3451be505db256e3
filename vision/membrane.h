#pragma once

#include "vision/mask.h"

/// What happens at the edge of a hole.
namespace fovea {

/// The image with its hole filled by the membrane that is fixed at the pixels around: Δf = 0, each
/// pixel the mean of its neighbours, to about 10⁻⁵. At the image's edges it is free. What was in
/// the hole does not matter; a hole without any pixel around it becomes 0.
Image membrane(const Image& image, const Mask& mask);

/// `image` with the hole filled from `fill`, a picture of the same size, shifted by the membrane
/// of their difference at the hole's edge, so that the fill's gradients go on where the image's end
/// (Pérez, Gangnet and Blake, Poisson Image Editing, 2003). Values in [0, 1]. Pixels outside the
/// hole are the image's to the bit.
Image blend(const Image& image, const Image& fill, const Mask& mask);

/// Mean |difference| of neighbouring pixels over channels, in steps of 1/255.
struct Seam {
    double across;  ///< pairs with one pixel in the hole
    double nearby;  ///< other pairs up to four pixels from one of those
};
/// 0 and 0 where the hole has no edge.
Seam seam_of(const Image& image, const Mask& mask);

}  // namespace fovea
