#include "backend/patterns/planner.h"

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

#include "backend/error.h"

namespace fovea {
namespace {

uint32_t div_up(uint32_t a, uint32_t b) {
    return a / b + (a % b != 0);
}

void set_bits(std::span<uint32_t> words, uint32_t begin, uint32_t end) {
    for (uint32_t w = begin / 32; w * 32 < end; ++w) {
        const uint32_t low = std::max(begin, w * 32) - w * 32, high = std::min(end - w * 32, 32u);
        words[w] |= (high == 32 ? ~0u : (1u << high) - 1) & (~0u << low);
    }
}

/// One query tile at a time: bits of every key tile touched, then blocks.
class Builder {
  public:
    Builder(BlockList& list, const Pattern& pattern)
        : list_(list),
          pattern_(pattern),
          words_(list.mask_words()),
          mask_size_(list.tile.q * words_),
          tiles_(list.key_tiles() + list.extra_tiles()),
          bits_(uint64_t{tiles_} * mask_size_),
          touched_(tiles_) {}

    void add(uint32_t begin) {
        rows_ = std::min(list_.tile.q, list_.q_len - begin);
        if (pattern_.has_runs()) {
            if (!collect_runs(begin)) {  // nothing changed since the tile before
                list_.rows.push_back(list_.rows.back());
                list_.kept_pairs += kept_;
                return;
            }
            for (uint32_t r = 0; r < rows_; ++r)
                for (size_t i = row_begin_[r]; i < row_begin_[r + 1]; ++i) add_run(r, runs_[i]);
        } else {
            evaluate(begin);
        }
        for (uint32_t r = 0; r < rows_ && list_.extra_len > 0; ++r) {
            const uint32_t first = list_.key_tiles() * list_.tile.k;
            add_run(r, {first, first + list_.extra_len});
        }
        emit();
    }

  private:
    bool collect_runs(uint32_t begin) {
        last_runs_.swap(runs_);
        last_row_begin_.swap(row_begin_);
        runs_.clear();
        row_begin_.assign(1, 0);
        for (uint32_t r = 0; r < rows_; ++r) {
            pattern_.runs(begin + r, runs_);
            row_begin_.push_back(runs_.size());
        }
        for (TokenRange& run : runs_) run.end = std::min(run.end, list_.kv_len);
        return list_.rows.empty() || runs_ != last_runs_ || row_begin_ != last_row_begin_;
    }

    void add_run(uint32_t row, TokenRange run) {
        for (uint32_t at = run.begin; at < run.end;) {
            const uint32_t tile = at / list_.tile.k, start = tile * list_.tile.k;
            const uint32_t end = std::min(run.end, start + list_.tile.k);
            touched_[tile] = 1;
            set_bits(mask_row(tile, row), at - start, end - start);
            at = end;
        }
    }

    void evaluate(uint32_t begin) {
        for (uint32_t tile = 0; tile < list_.key_tiles(); ++tile) {
            const TokenRange keys{tile * list_.tile.k,
                                  std::min((tile + 1) * list_.tile.k, list_.kv_len)};
            const Cover cover = pattern_.cover({begin, begin + rows_}, keys);
            if (cover == Cover::none) continue;
            for (uint32_t r = 0; r < rows_; ++r) {
                if (cover == Cover::full) {
                    add_run(r, keys);
                    continue;
                }
                for (uint32_t k = keys.begin; k < keys.end; ++k)
                    if (pattern_.keeps(begin + r, k)) add_run(r, {k, k + 1});
            }
        }
    }

    void emit() {
        kept_ = 0;
        blocks_.clear();
        for (uint32_t tile = 0; tile < tiles_; ++tile) {
            if (!touched_[tile]) continue;
            const auto mask = std::span(bits_).subspan(uint64_t{tile} * mask_size_, mask_size_);
            uint64_t kept = 0;
            for (const uint32_t word : mask)
                kept += static_cast<uint32_t>(__builtin_popcount(word));
            kept_ += kept;
            const bool full = kept == uint64_t{rows_} * list_.tile.k;
            blocks_.push_back({tile, full ? BlockList::kFull : mask_number(mask)});
            std::fill(mask.begin(), mask.end(), 0);
            touched_[tile] = 0;
        }
        list_.kept_pairs += kept_;
        list_.rows.push_back(
            {static_cast<uint32_t>(list_.blocks.size()), static_cast<uint32_t>(blocks_.size())});
        list_.blocks.insert(list_.blocks.end(), blocks_.begin(), blocks_.end());
    }

    uint32_t mask_number(std::span<const uint32_t> mask) {
        uint64_t hash = 14695981039346656037ull;  // FNV-1a, by words
        for (const uint32_t word : mask) hash = (hash ^ word) * 1099511628211ull;
        const auto [first, last] = numbers_.equal_range(hash);
        for (auto it = first; it != last; ++it) {
            const auto stored = list_.masks.begin() + static_cast<int64_t>(it->second) * mask_size_;
            if (std::equal(mask.begin(), mask.end(), stored)) return it->second;
        }
        const auto number = static_cast<uint32_t>(list_.masks.size() / mask_size_);
        list_.masks.insert(list_.masks.end(), mask.begin(), mask.end());
        numbers_.emplace(hash, number);
        return number;
    }

    std::span<uint32_t> mask_row(uint32_t tile, uint32_t row) {
        return std::span(bits_).subspan(uint64_t{tile} * mask_size_ + uint64_t{row} * words_,
                                        words_);
    }

    BlockList& list_;
    const Pattern& pattern_;
    const uint32_t words_, mask_size_, tiles_;
    uint32_t rows_ = 0;
    uint64_t kept_ = 0;           ///< of the last tile
    std::vector<uint32_t> bits_;  ///< a mask for every key tile, zero between query tiles
    std::vector<uint8_t> touched_;
    std::vector<TokenRange> runs_, last_runs_;
    std::vector<size_t> row_begin_, last_row_begin_;
    std::vector<BlockList::Block> blocks_;
    std::unordered_multimap<uint64_t, uint32_t> numbers_;
};

}  // namespace

BlockList block_list(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
                     uint32_t extra_len) {
    require(tile.q > 0 && tile.k > 0 && q_len > 0 && kv_len > 0,
            "[block_list] tile and lengths must be at least 1, found {}×{}, {} and {}", tile.q,
            tile.k, q_len, kv_len);
    if (pattern.heads() > 0) return block_list(pattern.head(0), tile, q_len, kv_len, extra_len);
    BlockList list{.tile = tile, .q_len = q_len, .kv_len = kv_len, .extra_len = extra_len};
    Builder builder(list, pattern);
    for (uint32_t i = 0; i < div_up(q_len, tile.q); ++i) builder.add(i * tile.q);
    return list;
}

Plan plan(const Pattern& pattern, TileShape tile, uint32_t q_len, uint32_t kv_len,
          uint32_t extra_len) {
    Plan plan;
    std::map<std::string, uint32_t> numbers;
    for (uint32_t h = 0; h < std::max(1u, pattern.heads()); ++h) {
        const Pattern head = pattern.head(h);
        const auto [it, is_new] =
            numbers.emplace(head.key(), static_cast<uint32_t>(plan.lists.size()));
        if (is_new) plan.lists.push_back(block_list(head, tile, q_len, kv_len, extra_len));
        if (pattern.heads() > 0) plan.list_of_head.push_back(it->second);
    }
    return plan;
}

}  // namespace fovea
