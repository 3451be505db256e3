#include "backend/patterns/list_maker.h"

#include <algorithm>

namespace fovea {
namespace {

uint64_t mix(uint64_t hash, uint64_t value) {  // FNV-1a by words, its high bits folded down
    hash = (hash ^ value) * 1099511628211ull;
    return hash ^ hash >> 32;
}

uint64_t hash_of(std::span<const uint32_t> words) {
    uint64_t hash = 14695981039346656037ull;
    for (const uint32_t word : words) hash = mix(hash, word);
    return hash;
}

}  // namespace

void set_bits(std::span<uint32_t> words, TokenRange range) {
    for (uint32_t w = range.begin / 32; w * 32 < range.end; ++w) {
        const uint32_t low = std::max(range.begin, w * 32) - w * 32;
        const uint32_t high = std::min(range.end - w * 32, 32u);
        words[w] |= (high == 32 ? ~0u : (1u << high) - 1) & (~0u << low);
    }
}

ListMaker::ListMaker(BlockList& list)
    : list_(list), mask_size_(size_t{list.tile.q} * list.mask_words()) {
    for (size_t at = 0; at < list.masks.size(); at += mask_size_)
        masks_.emplace(hash_of(std::span(list.masks).subspan(at, mask_size_)),
                       static_cast<uint32_t>(at / mask_size_));
}

uint32_t ListMaker::mask(std::span<const uint32_t> words) {
    const uint64_t hash = hash_of(words);
    const auto [first, last] = masks_.equal_range(hash);
    for (auto it = first; it != last; ++it) {
        const auto stored = std::span(list_.masks).subspan(it->second * mask_size_, mask_size_);
        if (std::equal(words.begin(), words.end(), stored.begin())) return it->second;
    }
    const auto number = static_cast<uint32_t>(list_.masks.size() / mask_size_);
    list_.masks.insert(list_.masks.end(), words.begin(), words.end());
    masks_.emplace(hash, number);
    return number;
}

void ListMaker::row(std::span<const BlockList::Block> blocks) {
    uint64_t hash = 14695981039346656037ull;
    for (const auto& block : blocks) hash = mix(hash, block.key_tile | uint64_t{block.mask} << 32);
    const auto [first, last] = rows_.equal_range(hash);
    for (auto it = first; it != last; ++it) {
        const auto stored = std::span(list_.blocks).subspan(it->second.first, it->second.count);
        if (std::equal(blocks.begin(), blocks.end(), stored.begin(), stored.end())) {
            list_.rows.push_back(it->second);
            return;
        }
    }
    const BlockList::Row row{static_cast<uint32_t>(list_.blocks.size()),
                             static_cast<uint32_t>(blocks.size())};
    list_.blocks.insert(list_.blocks.end(), blocks.begin(), blocks.end());
    list_.rows.push_back(row);
    rows_.emplace(hash, row);
}

}  // namespace fovea
