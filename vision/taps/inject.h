#pragma once

#include <utility>
#include <vector>

#include "vision/models/dit.h"

/// Writes attention: one sample of a batch takes maps of another, a source that runs beside it in
/// the same forward pass. Maps of words, tokens × words, are there in full; those of tokens ×
/// tokens are not: a source's map times the target's values is attention with the source's queries
/// and keys. docs/attention-maps.md.
namespace fovea {

/// Cross-attention: map(target) becomes map(source) · mapping + map(target) · diag(own), in every
/// layer. Rows that no longer sum to 1 are left so, as in Prompt-to-Prompt (arXiv 2208.01626):
///   replacement, refinement  mapping from token_mapping(), own 0 where it has a source, else 1
///   reweighting              own (or the column of mapping) times the factor
struct CrossInjection {
    int64_t source = 0, target = 1;  ///< samples of the batch
    Tensor mapping;                  ///< (length, length) f32: from source word to target word
    Tensor own;                      ///< (length) f32
};

/// A hook for DitHooks::cross. The source's output is summed in the same way as the target's, so
/// that with the identity as mapping and the same latents both are the same to the bit.
DitHooks::Attention inject_cross(CrossInjection injection);

/// Self-attention: where the mask is 0 the target's tokens look where the source's do, where it is
/// 1 where their own queries point, o = m · attn(q_t, k_t, v_t) + (1 − m) · attn(q_s, k_s, v_t)
/// (FateZero, arXiv 2303.09535, whose maps these are without being stored).
struct SelfInjection {
    std::vector<std::pair<int64_t, int64_t>> pairs;  ///< (source, target) samples of the batch
    Tensor mask;  ///< (tokens) f32 in [0, 1]; absent: 0 everywhere
};

/// A hook for DitHooks::attention around that which gives attn.
DitHooks::Attention inject_self(SelfInjection injection, DitHooks::Attention attention);

/// Self-attention of pictures beside references: where the mask is 1 a picture's tokens look at its
/// reference, where it is 0 at themselves, o = m · attn(q_p, k_r, v_r) + (1 − m) · attn(q_p, k_p,
/// v_p). With references that show a subject where it comes this is the reposition of IR-Diffusion
/// (arXiv 2411.19261).
struct ReferenceInjection {
    int64_t count = 1;  ///< pictures: in every 2 · count samples they come first, then references
    Tensor mask;        ///< (tokens) f32 in [0, 1]
};

/// Hooks for attention and perturbed around those of `base`. At masked tokens strengths of single
/// heads mean nothing.
DitHooks inject_reference(const ReferenceInjection& injection, const DitHooks& base);

/// Cross-attention by region: what the texts of a batch have to say, side by side as keys, and to
/// which tokens.
struct RegionTexts {
    Dit::Context texts;
    Tensor bias;  ///< (1, tokens, texts · length) f32, added to the logits
};

/// A hook for DitHooks::cross: all samples of the batch but `count` from `first` on hear the
/// regions' texts instead of their own.
DitHooks::Attention inject_regions(RegionTexts regions, int64_t first, int64_t count);

}  // namespace fovea
