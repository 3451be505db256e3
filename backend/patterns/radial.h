#pragma once

#include <memory>

#include "backend/patterns/block_mask.h"

/// Radial attention of video tokens: attention decays with the distance of frames, so frame pairs
/// further apart keep a narrower diagonal band, and far ones only every so often. The rule of
/// github.com/mit-han-lab/radial-attention, attn_mask.py; for s tokens a frame, frames i and j at
/// distance t = |i − j|, and reach = 2^bits(s) / 2^bits(t), bits(n) = digits of n in base 2:
/// - band: pairs of in-frame indices at distance ≤ reach · decay, but at least one block; the whole
///   frame for t ≤ 1;
/// - thinning: where reach < 128, only frame pairs with t mod ⌊128 / reach⌋ = 0 (128 whatever the
///   block, and without the decay: as the source has it; `thinning` is that number, for small
///   frames, which 128 would not leave their next neighbours);
/// - sink: every query sees the whole first frame (Wan);
/// - blocks: a block keeps a frame pair if more than 0.6 of the columns that the pair touches in it
///   are kept in more than a third of the block's rows; several pairs in one block are or-ed, and a
///   frame that starts inside a block is counted for ⌈s / block⌉ blocks from there, no further;
/// - blocks that hold tokens behind the video (padding and text) are visible both ways.
/// The mask depends on shapes only: one for all heads, layers and steps. O(blocks² · block).
namespace fovea {

struct RadialOptions {
    uint32_t frames = 1;
    uint32_t tokens_per_frame = 1;
    uint32_t tokens = 0;  ///< video, then padding and text; 0: the video alone
    uint32_t block = 128;
    double decay = 1;  ///< 0.2 for Wan2.1-14B, 0.95 for HunyuanVideo in the source's scripts
    bool sink_first_frame = false;
    uint32_t thinning = 128;
};

class Radial {
  public:
    explicit Radial(const RadialOptions& options);

    bool keeps(uint32_t q, uint32_t k) const { return mask_->keeps(q, k); }
    Grid grid() const { return {.shape = {tokens_}}; }
    std::string key() const { return key_; }
    Cover cover(TokenRange queries, TokenRange keys) const { return mask_->cover(queries, keys); }
    TileShape granularity() const { return mask_->block; }
    const BlockMask& block_mask() const { return *mask_; }

  private:
    uint32_t tokens_;
    std::string key_;
    std::shared_ptr<const BlockMask> mask_;
};

inline Radial radial(const RadialOptions& options) {
    return Radial(options);
}

}  // namespace fovea
