#pragma once

#include <string>
#include <vector>

#include "backend/error.h"
#include "backend/patterns/block_list.h"
#include "backend/patterns/pattern.h"

/// A rule that is constant on blocks of queries × keys: what radial, block-sparse and reordered
/// patterns have in common.
namespace fovea {

struct BlockMask {
    TileShape block;               ///< queries × keys; the last block of a side may be ragged
    uint32_t rows = 0, cols = 0;   ///< blocks of queries, blocks of keys
    std::vector<uint8_t> visible;  // (rows, cols), 0 or 1

    bool at(uint32_t row, uint32_t col) const { return visible[size_t{row} * cols + col] != 0; }
    bool keeps(uint32_t q, uint32_t k) const { return at(q / block.q, k / block.k); }
    /// Share of blocks that are visible.
    double density() const;
    Cover cover(TokenRange queries, TokenRange keys) const;
};

/// Head h alone: head() of patterns whose heads are a list.
template <typename Head>
std::vector<Head> one_head(const char* pattern, const std::vector<Head>& heads, uint32_t h) {
    require(h < heads.size(), "[{}] head {} asked for, there are {}", pattern, h, heads.size());
    return {heads[h]};
}

/// 32 hexadecimal digits that name the mask: equal masks have equal ones, others do not.
std::string digest(const BlockMask& mask);

}  // namespace fovea
