#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "vision/models/dit.h"

/// Reads the attention of forward passes as they run: how much each picture token attends to each
/// word, and how much each picture token is attended to. A word map has tokens × words values, a
/// column sum one a token; no map of tokens² is ever made. docs/attention-maps.md.
namespace fovea {

struct TapOptions {
    bool words = true;            ///< maps of cross-attention
    bool received = false;        ///< column sums of self-attention
    std::vector<int64_t> layers;  ///< that are read; empty: all
    /// Kept apart; else their mean.
    bool by_layer = false, by_head = false, by_step = false;
    uint64_t budget = uint64_t{256} << 20;  ///< bytes of what is kept
};

/// What a reading is of: `samples` of the batch from `first`, over `steps` calls of around().
struct TapPlace {
    DitGrid grid{};
    int64_t first = 0, samples = 1;
    int steps = 1;
    int64_t length = 32;  ///< tokens of the text
};

class Taps {
  public:
    /// Throws Error where the maps would not fit the budget, and says what would.
    Taps(const Dit& dit, const TapPlace& place, TapOptions options = {});

    /// `hooks` and the reading of their forward pass, as step `step`; the pass computes what it
    /// would without it, to the bit. Empty hooks.attention: the model's patterns. Column sums are
    /// those of the model's patterns whatever hooks.attention does. *this must outlive the hooks.
    DitHooks around(DitHooks hooks, int step);

    struct Map {
        int step;       ///< −1: mean of the steps
        int64_t layer;  ///< −1: mean of the layers
        Tensor values;
    };
    /// (samples, heads or 1, tokens, length) f32: share of attention, rows sum to 1.
    std::vector<Map> words(vk::Stream& stream) const { return means(stream, words_); }
    /// (samples, heads or 1, tokens) f32: Σ over the queries of softmax(q·k) at this key, 1 in the
    /// mean.
    std::vector<Map> received(vk::Stream& stream) const { return means(stream, received_); }

  private:
    struct Sum {
        Tensor values;
        int count = 0;
    };
    using Sums = std::map<std::pair<int, int64_t>, Sum>;  ///< by (step, layer)

    bool reads(int64_t layer) const;
    void add(vk::Stream& stream, Sums& sums, int step, int64_t layer, Tensor values);
    static std::vector<Map> means(vk::Stream& stream, const Sums& sums);

    TapPlace place_;
    TapOptions options_;
    int64_t layers_;
    std::vector<Pattern> patterns_;
    Sums words_, received_;
};

}  // namespace fovea
