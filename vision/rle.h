#pragma once

#include <string>

#include "vision/mask.h"

namespace fovea {

/// A mask as COCO's compressed run-length encoding has it (the "counts" of a segmentation,
/// github.com/cocodataset/cocoapi, common/maskApi.c): lengths of runs of 0 and 1 by turns, down the
/// columns from the left, beginning with 0; from the fourth on less the one two before; each as
/// characters from '0' on of 5 bits, the lowest first, with a sixth bit where more follow and the
/// last one's highest bit for the sign.
std::string encode_rle(const Mask& mask);

}  // namespace fovea
