#pragma once

#include <map>
#include <string>

#include "apps/bench/shapes.h"
#include "vision/layers.h"

/// Transformer blocks of published models, batch 1, with random weights: what each computes is that
/// model's own, so that its time means something.
///   dit     DiT (arXiv 2212.09748): x += gate · attention(modulated norm), x += gate · MLP
///   wan     Wan 2.1 (arXiv 2503.20314): the same with RMS-normed and rotated q and k, and between
///           the two cross-attention to the text, whose keys and values are made here
///   dual    FLUX.1's and HunyuanVideo's (arXiv 2412.03603) double block, after SD3 (2403.03206):
///           image and text with weights of their own, one attention over both
///   single  FLUX.1's single block: attention and MLP beside each other, image and text alike
/// In dual and single the grid's queries see the text whatever the pattern, and the text sees all.
namespace fovea::apps::bench {

struct BlockWeights {
    std::map<std::string, Linear> layers;
    std::map<std::string, Tensor> vectors;  ///< of norms, and wan's modulation
    double flops = 0;                       ///< of a run's products, 2 a multiplication
    double bytes = 0;

    const Linear& layer(const std::string& name) const { return layers.at(name); }
    const Tensor& vector(const std::string& name) const { return vectors.at(name); }
};

/// What goes through a block. Of wan the text stays as it is; of single it follows the image in one
/// tensor, and `text` is absent, as in dit.
struct Tokens {
    Tensor image, text;  ///< (1, tokens, width)
};

/// What a check needs to see of a run besides its inputs and outputs.
struct AttentionCall {
    Tensor k, v, k_extra, v_extra;  ///< (1, tokens, heads, head_dim), or a view of that shape
    Tensor o;                       ///< the grid's queries
    Tensor text_o;                  ///< the text's, where it asks
};
struct Trace {
    Tokens in, out;
    AttentionCall self, cross;
};

/// Everything of set `number` of the inputs is drawn from seed 6 on the device.
BlockWeights random_block(vk::Stream& stream, const ModelShape& shape, DType dtype,
                          uint32_t number);
Tokens random_tokens(vk::Stream& stream, const ModelShape& shape, DType dtype, uint32_t number);
/// What modulates: (1, width), of wan (6, width), already projected.
Tensor random_condition(vk::Stream& stream, const ModelShape& shape, DType dtype, uint32_t number);

Tokens run_block(vk::Stream& stream, const ModelShape& shape, const BlockWeights& weights,
                 const Tokens& x, const Tensor& condition, const Pattern& pattern,
                 Trace* trace = nullptr);

/// DiT from latents (1, 2·rows, 2·columns, 4), features of the time (1, 256) and the embedding of a
/// class (1, width) to noise and variance (1, 2·rows, 2·columns, 8).
struct Denoiser {
    BlockWeights ends;  ///< patch, time1, time2, final_modulation, final; positions
    std::vector<BlockWeights> blocks;
    Tensor latent, time, label;
};

struct DenoiserTrace {
    Tensor condition;
    std::vector<Trace> blocks;
};

Denoiser random_denoiser(vk::Stream& stream, const ModelShape& shape, DType dtype, uint32_t number);
Tensor run_denoiser(vk::Stream& stream, const ModelShape& shape, const Denoiser& model,
                    const Pattern& pattern, DenoiserTrace* trace = nullptr);

/// Relative L2 error of a run's keys and values, attention and outputs at a few tokens, each on its
/// own, the worst of them: against plain sums on the host from the run's inputs and weights, and in
/// attention from its keys and values.
double block_error(vk::Stream& stream, const ModelShape& shape, const BlockWeights& weights,
                   const Tensor& condition, const Pattern& pattern, const Trace& trace);
/// Of what precedes the blocks, of the first and the last, and of what follows them.
double denoiser_error(vk::Stream& stream, const ModelShape& shape, const Denoiser& model,
                      const Pattern& pattern, const DenoiserTrace& trace, const Tensor& found);

}  // namespace fovea::apps::bench
