#pragma once

#include <string>

#include "vision/mask.h"

/// How well masks agree, and where one asks about them.
namespace fovea::apps::bench {

struct Mean {
    int count = 0;
    double sum = 0;

    void add(double value) {
        sum += value;
        ++count;
    }
    double value() const { return count > 0 ? sum / count : 0; }
    double rate() const { return sum > 0 ? count / sum : 0; }  ///< of seconds
    std::string text() const;                                  ///< three digits; empty of nothing
    std::string percent() const;                               ///< the same of a share
};

/// Intersection over union of masks of one size; 0 where both are empty.
double iou(const Mask& a, const Mask& b);

struct Pixel {
    int x = 0, y = 0;
};
/// The pixel that lies farthest from a mask's edge (the picture's edge is one), by a chamfer
/// distance with steps of 3 and diagonally of 4 (Borgefors, CVGIP 34, 1986). The mask holds one.
Pixel innermost(const Mask& mask);

}  // namespace fovea::apps::bench
