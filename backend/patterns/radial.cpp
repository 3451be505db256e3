#include "backend/patterns/radial.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <tuple>

#include "backend/error.h"
#include "backend/patterns/sizes.h"

namespace fovea {
namespace {

constexpr uint32_t kMostBlocks = 1 << 14;

/// Of one frame pair: in-frame indices r and c are kept where |r − c| ≤ width; −1 keeps none.
double band_width(const RadialOptions& o, uint32_t i, uint32_t j) {
    if (o.sink_first_frame && j == 0) return o.tokens_per_frame;
    const uint32_t t = i > j ? i - j : j - i;
    const double reach =
        std::exp2(std::bit_width(o.tokens_per_frame)) / std::exp2(std::bit_width(t));
    if (reach < o.thinning && t % static_cast<uint32_t>(o.thinning / reach) != 0) return -1;
    if (t <= 1) return o.tokens_per_frame;
    return std::max(reach * o.decay, double{1} * o.block);
}

/// The part of one frame pair that lies in one block, rows and columns counted inside the frames.
bool keeps_block(TokenRange rows, TokenRange cols, uint32_t block, uint32_t width) {
    uint32_t dense = 0, touched = 0;
    for (uint32_t c = cols.begin; c < cols.end; ++c) {
        const uint32_t begin = std::max(rows.begin, c - std::min(c, width));
        const uint32_t end = std::min(rows.end, c + width + 1);
        const uint32_t kept = end > begin ? end - begin : 0;
        touched += kept > 0;
        dense += 3 * kept > block;
    }
    return 5 * dense > 3 * touched;
}

BlockMask make_mask(const RadialOptions& o) {
    const uint32_t s = o.tokens_per_frame, b = o.block, blocks = div_up(o.tokens, b);
    BlockMask mask{.block = {b, b}, .rows = blocks, .cols = blocks};
    mask.visible.resize(size_t{blocks} * blocks);
    const uint32_t behind_video = o.frames * s / b;
    for (uint32_t r = 0; r < blocks; ++r)
        std::fill_n(
            mask.visible.begin() + int64_t{r} * blocks + (r < behind_video ? behind_video : 0),
            blocks - (r < behind_video ? behind_video : 0), 1);

    const uint32_t span = div_up(s, b);                     // blocks that a frame is counted for
    const auto inside = [&](uint32_t offset, uint32_t n) {  // tokens of a frame in its nth block
        const auto cut = [&](uint32_t at) { return std::min(at - std::min(at, offset), s); };
        return TokenRange{cut(n * b), cut(n * b + b)};
    };
    // Frames that start at the same place of a block have the same blocks.
    std::map<std::tuple<uint32_t, uint32_t, uint32_t>, std::vector<uint8_t>> pairs;
    const auto pair = [&](uint32_t row, uint32_t col, uint32_t width) -> const auto& {
        const auto [it, is_new] = pairs.try_emplace({row, col, width});
        for (uint32_t i = 0; is_new && i < span * span; ++i)
            it->second.push_back(
                keeps_block(inside(row, i / span), inside(col, i % span), b, width));
        return it->second;
    };
    for (uint32_t i = 0; i < o.frames; ++i)
        for (uint32_t j = 0; j < o.frames; ++j) {
            const double width = band_width(o, i, j);
            if (width < 0) continue;
            const auto& kept =
                pair(i * s % b, j * s % b, static_cast<uint32_t>(std::min(width, double{1} * s)));
            for (uint32_t r = 0; r < span; ++r) {
                uint8_t* row = &mask.visible[size_t{i * s / b + r} * blocks + j * s / b];
                for (uint32_t c = 0; c < span; ++c) row[c] |= kept[size_t{r} * span + c];
            }
        }
    return mask;
}

}  // namespace

Radial::Radial(const RadialOptions& options) {
    RadialOptions o = options;
    require(o.frames >= 1 && o.tokens_per_frame >= 1 && o.block >= 1,
            "[radial] frames, tokens_per_frame and block must be at least 1, found {}, {} and {}",
            o.frames, o.tokens_per_frame, o.block);
    const uint32_t video = checked_tokens("radial", std::array{o.frames, o.tokens_per_frame});
    if (o.tokens == 0) o.tokens = video;
    require(o.tokens >= video && o.tokens <= kMostTokens,
            "[radial] tokens must be frames × tokens_per_frame = {} to {}, found {}", video,
            kMostTokens, o.tokens);
    // The mask is a byte a pair of blocks, and made by pairs of frames.
    require(o.block <= kMostTokens && div_up(o.tokens, o.block) <= kMostBlocks &&
                o.frames <= kMostBlocks,
            "[radial] at most {} frames, blocks of at most {} tokens and at most {} of them "
            "expected, found {} frames and {} tokens in blocks of {}",
            kMostBlocks, kMostTokens, kMostBlocks, o.frames, o.tokens, o.block);
    require(o.decay > 0 && std::isfinite(o.decay), "[radial] decay must be above 0, found {}",
            o.decay);
    tokens_ = o.tokens;
    mask_ = std::make_shared<BlockMask>(make_mask(o));
    for (uint32_t row = 0; row < mask_->rows; ++row) {
        const auto begin = mask_->visible.begin() + int64_t{row} * mask_->cols;
        require(std::find(begin, begin + mask_->cols, 1) != begin + mask_->cols,
                "[radial] queries {} to {} would see no key: {} tokens a frame are too few for "
                "blocks of {}; take smaller blocks or fewer frames",
                row * o.block, std::min((row + 1) * o.block, o.tokens) - 1, o.tokens_per_frame,
                o.block);
    }
    key_ = fmt::format("radial:{}x{}:tokens={}:block={}:decay={}:sink={}:thinning={}", o.frames,
                       o.tokens_per_frame, o.tokens, o.block, o.decay, int{o.sink_first_frame},
                       o.thinning);
}

}  // namespace fovea
