#pragma once

#include <memory>
#include <string_view>

#include "backend/patterns/block_mask.h"

/// Reordered block-sparse attention (PAROAttention, arXiv 2506.16054): each head lays the tokens of
/// a video grid out in the order of axes in which its attention map falls into blocks, and a block
/// mask holds in that sequence. Text tokens come first and stay in place. Kernels gather rows by
/// the order (BlockList::q_order), so no permutation has a pass of its own; q, k, v and o stay
/// row-major.
namespace fovea {

/// Axes from the outermost to the innermost: in `fwh` neighbours in a sequence differ in h.
enum class AxisOrder { fhw, fwh, hwf, hfw, whf, wfh };

AxisOrder parse_axis_order(std::string_view text);  ///< "FHW" …; throws Error
const char* name_of(AxisOrder order);               ///< "FHW" …

/// Tokens in the sequence of this order: `text_tokens` in place, then the grid {frames, rows,
/// columns}.
std::vector<uint32_t> reordered_tokens(const Grid& grid, AxisOrder order, uint32_t text_tokens = 0);

struct ReorderedOptions {
    Grid grid;                      ///< {frames, rows, columns}
    std::vector<AxisOrder> orders;  ///< one a head, or one for all, whatever their number
    uint32_t text_tokens = 0;
    uint32_t block_q = 64, block_k = 64;
    std::vector<uint8_t> mask;  // (heads or 1, q_blocks, k_blocks) of the sequence, 0: not seen
};

class Reordered {
  public:
    explicit Reordered(const ReorderedOptions& options);

    bool keeps(uint32_t q, uint32_t k) const {
        const Head& head = heads_[0];
        return head.mask->keeps((*head.slot_of)[q], (*head.slot_of)[k]);
    }
    Grid grid() const { return grid_; }
    std::string key() const;
    uint32_t heads() const { return heads_.size() == 1 ? 0 : static_cast<uint32_t>(heads_.size()); }
    Reordered head(uint32_t h) const { return {grid_, one_head("reordered", heads_, h)}; }
    TileShape granularity() const { return block_mask().block; }  ///< in the sequence
    BlockList blocks(TileShape tile) const;
    const BlockMask& block_mask() const { return *heads_[0].mask; }  ///< of head 0

  private:
    struct Head {
        AxisOrder order;
        std::shared_ptr<const std::vector<uint32_t>> token_of, slot_of;
        std::shared_ptr<const BlockMask> mask;
        std::string key;
    };
    Reordered(Grid grid, std::vector<Head> heads)
        : grid_(std::move(grid)), heads_(std::move(heads)) {}

    Grid grid_;
    std::vector<Head> heads_;
};

inline Reordered reordered(const ReorderedOptions& options) {
    return Reordered(options);
}

}  // namespace fovea
