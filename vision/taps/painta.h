#pragma once

#include <memory>
#include <vector>

#include "vision/models/dit.h"
#include "vision/taps/taps.h"

/// Prompt-aware self-attention of holes, after PAIntA (HD-Painter, arXiv 2312.14091): logits of a
/// hole's queries at known keys are multiplied by how much the prompt's words attend to the key, so
/// that what is asked for is drawn from the words and not from what is around. docs/inpainting.md.
namespace fovea {

/// c = clip((S − median S) / max S, 0, 1), S the shares blurred by a Gaussian of 3 × 3 tokens, σ =
/// 0.5. shares: (rows, columns). All 0 where no share is above the median.
std::vector<float> painta_factors(const std::vector<float>& shares, int64_t rows, int64_t columns);

class Painta {
  public:
    /// Of each picture of the batch.
    struct Sample {
        std::vector<uint8_t> hole;  ///< (tokens): 1 in the hole
        std::vector<size_t> words;  ///< places of the words in the prompt
    };
    /// Acts at times above `until`; rows of the batch are samples by turns, in every call.
    Painta(vk::Stream& stream, const Dit& dit, const DitGrid& grid, std::vector<Sample> samples,
           float until = 0.5f);

    /// Of a forward pass at time t; asked before each one. Maps are those of the pass before: the
    /// first pass is the model's own. Waits for that pass. *this must outlive the hooks.
    DitHooks hooks(float t);

    /// (tokens) factors of known keys that the last hooks() give sample i; empty: none act.
    const std::vector<float>& factors(size_t i) const { return factors_.at(i); }

  private:
    Tensor attend_rows(int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v,
                       const Tensor& strengths) const;

    vk::Stream& stream_;
    const Dit& dit_;
    DitGrid grid_;
    std::vector<Sample> samples_;
    float until_;
    std::vector<Pattern> patterns_;
    std::unique_ptr<Taps> taps_;  ///< of the last pass
    std::vector<std::vector<float>> factors_;
    /// Labels: of a query 1 in the hole, else 0; of a key its place. A table has a row for each
    /// label of queries.
    std::vector<Tensor> query_labels_, tables_;
    Tensor key_labels_;
};

}  // namespace fovea
