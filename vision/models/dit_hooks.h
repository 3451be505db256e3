#pragma once

#include <functional>
#include <vector>

#include "backend/patterns/pattern.h"
#include "backend/tensor.h"

/// Where methods that need no training reach into a forward pass of the Dit. A hook may keep state
/// from call to call (masks, residuals of earlier steps); what it gives must depend on nothing but
/// the calls so far. Several samples share a call: with guidance the first half of the batch has
/// the prompt, the second half has not.
namespace fovea {

/// One of the sums of a forward pass, y = x + residual(x), and how to get it.
struct DitPart {
    enum class Kind { attention, cross, mlp, blocks };
    Kind kind;
    int64_t layer;    ///< of `blocks`, all layers together: 0
    const Tensor& x;  ///< (batch, tokens, width)
    /// x, normed and modulated: what the part begins with; of `blocks`, what layer 0 begins with.
    std::function<Tensor()> modulated;
    /// y; all the work of the part.
    std::function<Tensor()> compute;
};

struct DitHooks {
    /// Self-attention of a layer: q and k (normed and turned by rope), v and the result are (batch,
    /// tokens, heads, head_dim), v as columns of a wider tensor, tokens in the order (frame, row,
    /// column). Empty: what the model was trained with, Dit::patterns().
    using Attention = std::function<Tensor(vk::Stream&, int64_t layer, const Tensor& q,
                                           const Tensor& k, const Tensor& v)>;
    Attention attention;

    /// y of a part: part.compute(), or something cheaper, such as x plus the residual of an earlier
    /// step. Asked first for `blocks`, whose compute() asks for the parts of each layer. Empty:
    /// compute().
    using Part = std::function<Tensor(vk::Stream&, const DitPart&)>;
    Part part;
};

/// Attention by a pattern a layer.
DitHooks::Attention attention_by(std::vector<Pattern> patterns);

}  // namespace fovea
