#pragma once

#include <cstdint>

#include "backend/ops/head_layout.h"
#include "backend/tensor.h"

/// What sparse attention is corrected by: rows scaled, something added.
namespace fovea {

struct RescaleOptions {
    float shift = 0;                              ///< added to the factors
    bool subtract = false;                        ///< − factor · x instead
    HeadLayout layout = HeadLayout::heads_first;  ///< of x, addend and the result
};

/// addend + clamp(factor + shift, 0, 1) · x.
///   x, addend  (batch, heads, tokens, d), f32 or f16; d a multiple of 4
///   factor     (batch, heads, tokens) f32, whatever the layout
Tensor rescale(vk::Stream& stream, const Tensor& x, const Tensor& factor, const Tensor& addend,
               const RescaleOptions& options = {});

/// In place, both of blocks of tokens: x = factor · x + addend.
///   factor  (batch, heads, blocks) f32, 0 to 1
///   addend  (batch, heads, blocks, d) f32
///   order   (blocks · block) i32: the token of each slot; −1: none
void rescale_blocks(vk::Stream& stream, const Tensor& x, const Tensor& factor, const Tensor& addend,
                    const Tensor& order, HeadLayout layout = HeadLayout::heads_first);

}  // namespace fovea
