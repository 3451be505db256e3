#include "backend/ops/device_list.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "backend/error.h"
#include "backend/log.h"
#include "backend/patterns/planner.h"
#include "shaders/attention/list_params.h"

namespace fovea {
namespace {

std::vector<uint32_t> order_or_identity(const std::vector<uint32_t>& order, uint32_t len,
                                        uint32_t tile) {
    if (!order.empty()) return order;
    std::vector<uint32_t> identity((len + tile - 1) / tile * tile, BlockList::kNoToken);
    for (uint32_t i = 0; i < len; ++i) identity[i] = i;
    return identity;
}

/// In each row, as the kernels of matrix units want it: they walk full blocks without masks. Rows
/// that are alike share their blocks.
std::vector<BlockList::Block> full_first(const BlockList& list) {
    std::vector<BlockList::Block> blocks = list.blocks;
    for (const auto& row : list.rows) {
        const auto first = blocks.begin() + row.first;
        std::stable_partition(first, first + row.count,
                              [](const auto& block) { return block.mask == BlockList::kFull; });
    }
    return blocks;
}

/// Numbers 0 … count − 1, those of most weight first; equal ones stay in order.
template <typename Weight>
std::vector<uint32_t> heaviest_first(size_t count, const Weight& weight) {
    std::vector<uint32_t> turns(count);
    std::iota(turns.begin(), turns.end(), 0u);
    std::stable_sort(turns.begin(), turns.end(),
                     [&](uint32_t a, uint32_t b) { return weight(a) > weight(b); });
    return turns;
}

/// Of query tiles, by their blocks in eighths of the longest row: those that hardly differ stay in
/// order, so that those at work together keep reading the same keys.
std::vector<uint32_t> turns_of_tiles(const BlockList& list) {
    uint32_t longest = 1;
    for (const auto& row : list.rows) longest = std::max(longest, row.count);
    return heaviest_first(list.rows.size(), [&](uint32_t tile) {
        return (8 * uint64_t{list.rows[tile].count} + longest - 1) / longest;
    });
}

std::vector<uint32_t> turns_of_heads(const Plan& plan) {
    return heaviest_first(std::max<size_t>(1, plan.list_of_head.size()), [&](uint32_t head) {
        return plan.list_of_head.empty() ? 0 : plan.lists[plan.list_of_head[head]].visited_blocks();
    });
}

bool in_order(const std::vector<uint32_t>& turns) {
    return std::is_sorted(turns.begin(), turns.end());
}

DeviceList upload_plan(vk::Stream& stream, const Plan& plan) {
    const bool ordered = std::any_of(plan.lists.begin(), plan.lists.end(), [](const auto& list) {
        return !list.q_order.empty() || !list.k_order.empty();
    });
    const auto heads = turns_of_heads(plan);
    const bool turns =
        !in_order(heads) || std::any_of(plan.lists.begin(), plan.lists.end(), [](const auto& list) {
            return !in_order(turns_of_tiles(list));
        });
    const size_t headers = std::max<size_t>(1, plan.list_of_head.size());
    std::vector<uint32_t> words(headers * shared::LIST_HEADER);
    std::vector<std::vector<uint32_t>> header_of;
    uint32_t longest = 0, most_key_tiles = 0;
    std::optional<uint32_t> key_tiles = plan.lists[0].key_tiles();
    for (const BlockList& list : plan.lists) {
        if (list.key_tiles() != key_tiles) key_tiles.reset();
        most_key_tiles = std::max(most_key_tiles, list.key_tiles());
        require(list.query_tiles() == plan.lists[0].query_tiles(),
                "[attention] the lists of a plan differ in query tiles: {} and {}",
                list.query_tiles(), plan.lists[0].query_tiles());
        std::vector<uint32_t> header(shared::LIST_HEADER);
        const auto part = [&](uint32_t entry) {
            require(words.size() < 0xffffffff, "[attention] a plan of more than 16 GiB");
            header[entry] = static_cast<uint32_t>(words.size());
        };
        part(shared::LIST_ROWS);
        for (const auto& row : list.rows) {
            words.insert(words.end(), {row.first, row.count});
            longest = std::max(longest, row.count);
        }
        part(shared::LIST_BLOCKS);
        for (const auto& block : full_first(list))
            words.insert(words.end(), {block.key_tile, block.mask});
        part(shared::LIST_MASKS);
        words.insert(words.end(), list.masks.begin(), list.masks.end());
        if (ordered) {
            const auto q = order_or_identity(list.q_order, list.q_len, list.tile.q);
            const auto k = order_or_identity(list.k_order, list.kv_len, list.tile.k);
            part(shared::LIST_Q_ORDER);
            words.insert(words.end(), q.begin(), q.end());
            part(shared::LIST_K_ORDER);
            words.insert(words.end(), k.begin(), k.end());
        }
        header[shared::LIST_KEY_TILES] = list.key_tiles();
        if (turns) {
            const auto tiles = turns_of_tiles(list);
            part(shared::LIST_TURNS);
            words.insert(words.end(), tiles.begin(), tiles.end());
        }
        header_of.push_back(std::move(header));
    }
    for (size_t h = 0; h < headers; ++h) {
        const auto& header = header_of[plan.list_of_head.empty() ? 0 : plan.list_of_head[h]];
        std::copy(header.begin(), header.end(),
                  words.begin() + static_cast<int64_t>(h * shared::LIST_HEADER));
        if (turns) words[h * shared::LIST_HEADER + shared::LIST_HEAD_TURN] = heads[h];
    }
    const std::span<const int32_t> view(reinterpret_cast<const int32_t*>(words.data()),
                                        words.size());
    return {.words = upload(stream, view, {static_cast<int64_t>(words.size())}),
            .list_words = plan.list_of_head.empty() ? 0 : shared::LIST_HEADER,
            .sample_words = 0,
            .query_tiles = plan.lists[0].query_tiles(),
            .longest_row = longest,
            .ordered = ordered,
            .turns = turns,
            .key_tiles = key_tiles,
            .most_key_tiles = most_key_tiles};
}

/// Bounded: a program with more patterns at once than this builds some of them again.
struct ListCache {
    static constexpr size_t kMost = 512;  // a calibration has one a layer and range of steps
    using Key = std::tuple<std::string, uint32_t, Grid, TileShape, uint32_t, uint32_t, uint32_t>;
    std::map<Key, DeviceList> lists;
};

}  // namespace

DeviceList device_list(vk::Stream& stream, const Pattern& pattern, TileShape tile, uint32_t q_len,
                       uint32_t kv_len, uint32_t extra_len) {
    auto& lists = stream.device().cache<ListCache>().lists;
    const ListCache::Key key{pattern.key(), pattern.heads(), pattern.grid(), tile,
                             q_len,         kv_len,          extra_len};
    if (const auto found = lists.find(key); found != lists.end()) return found->second;
    const Plan made = plan(pattern, tile, q_len, kv_len, extra_len);
    for (const BlockList& list : made.lists)
        log::debug(
            "attention: {} of {} × {} in {}×{} tiles visits {:.1f} % of the blocks, keeps "
            "{:.1f} % of the pairs, {} KiB",
            pattern.key(), q_len, kv_len, tile.q, tile.k, 100 * list.visited_share(),
            100 * list.kept_share(), list.bytes() / 1024);
    if (lists.size() >= ListCache::kMost) lists.clear();
    const DeviceList& list = lists.emplace(key, upload_plan(stream, made)).first->second;
    stream.submit();  // the cache may outlive the stream
    return list;
}

}  // namespace fovea
