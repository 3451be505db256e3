#pragma once

#include <functional>
#include <vector>

#include "backend/patterns/pattern.h"
#include "backend/tensor.h"

/// Where methods that need no training reach into a forward pass of the Dit. A hook may keep state
/// from call to call (masks, residuals of earlier steps); what it gives must depend on nothing but
/// the calls so far. Several samples share a call: with guidance a prompt's first, then those
/// without it, then its perturbed ones (vision/guidance); a hook that takes samples apart by their
/// place must be told that order.
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

/// Samples that go their own way from a layer on: what comes before is computed once.
struct DitBranch {
    int64_t layer = 0;             ///< before it, they leave the samples they are copies of
    int64_t first = 0, count = 0;  ///< those: rows of the batch, of its first ones
    std::vector<int64_t> skipped;  ///< layers, from `layer` on, that they pass unchanged
};

struct DitHooks {
    /// Self-attention of a layer: q and k (normed and turned by rope), v and the result are (batch,
    /// tokens, heads, head_dim), v as columns of a wider tensor, tokens in the order (frame, row,
    /// column). Empty: what the model was trained with, Dit::patterns().
    using Attention = std::function<Tensor(vk::Stream&, int64_t layer, const Tensor& q,
                                           const Tensor& k, const Tensor& v)>;
    Attention attention;

    /// The same with a strength a head, (heads) f32, as AttentionOptions::perturb; for guidance by
    /// single heads. Empty: there is none.
    std::function<Tensor(vk::Stream&, int64_t layer, const Tensor& q, const Tensor& k,
                         const Tensor& v, const Tensor& strengths)>
        perturbed;

    /// Cross-attention of a layer, likewise: q is of the picture's tokens, k (normed) and v are of
    /// the text's, (batch, length, heads, head_dim). Empty: every word.
    Attention cross;

    /// y of a part: part.compute(), or something cheaper, such as x plus the residual of an earlier
    /// step. Asked first for `blocks`, whose compute() asks for the parts of each layer. Empty:
    /// compute().
    using Part = std::function<Tensor(vk::Stream&, const DitPart&)>;
    Part part;

    /// Each adds rows to the batch, behind all rows before it; layers ascend. forward() gets the
    /// latents of the rows that are there from the start and the text of all rows, and gives
    /// velocities of all. A layer's hooks see the rows up to the last that does not skip it.
    std::vector<DitBranch> branches;
};

/// Attention by a pattern a layer.
DitHooks::Attention attention_by(std::vector<Pattern> patterns);
/// The same with strengths of heads as well.
DitHooks hooks_by(std::vector<Pattern> patterns);

}  // namespace fovea
