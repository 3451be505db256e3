#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/patterns/block_list.h"

/// A pattern is data: the rule which keys a query sees. The CPU reference calls keeps(), block
/// lists for the device are built from it, so that oracle and device cannot disagree about the
/// rule.
///
///     struct Checkerboard {                            // a pattern of your own
///         uint32_t rows, columns;
///         bool keeps(uint32_t q, uint32_t k) const { … }
///         Grid grid() const { return {.shape = {rows, columns}}; }
///         std::string key() const { return fmt::format("checkerboard:{}x{}", rows, columns); }
///     };
///     Tensor o = attention(stream, q, k, v, Checkerboard{16, 16});
namespace fovea {

/// How tokens lie, row-major, outermost axis first: (columns), (rows, columns) or (frames, rows,
/// columns). Empty: any number of tokens, and queries and keys may differ in number.
struct Grid {
    std::vector<uint32_t> shape;

    uint64_t tokens() const {
        uint64_t count = 1;
        for (const uint32_t extent : shape) count *= extent;
        return count;
    }
    auto operator<=>(const Grid&) const = default;
};

/// Tokens begin … end − 1.
struct TokenRange {
    uint32_t begin = 0, end = 0;
    bool operator==(const TokenRange&) const = default;
};

/// What a pattern keeps of a tile of queries × keys.
enum class Cover { none, full, partial };

/// The three members every pattern has. `key` names it uniquely: block lists are cached by it.
/// keeps() is called from several threads.
template <typename P>
concept PatternRule = requires(const P& pattern, uint32_t token) {
    { pattern.keeps(token, token) } -> std::convertible_to<bool>;
    { pattern.grid() } -> std::convertible_to<Grid>;
    { pattern.key() } -> std::convertible_to<std::string>;
};

/// Optional, for speed: none or full when the tile surely is, else partial, and keeps() decides.
template <typename P>
concept HasCover = requires(const P& pattern, TokenRange tile) {
    { pattern.cover(tile, tile) } -> std::same_as<Cover>;
};

/// Optional: heads differ. head(h) is the pattern of head h < heads(); keeps() is that of head 0.
template <typename P>
concept HasHeads = requires(const P& pattern, uint32_t h) {
    { pattern.heads() } -> std::convertible_to<uint32_t>;
    pattern.head(h);
};

/// Optional, for speed and for an order of its own: the block list in tiles of this shape, without
/// extra keys. Only of patterns with a grid.
template <typename P>
concept HasBlocks = requires(const P& pattern, TileShape tile) {
    { pattern.blocks(tile) } -> std::same_as<BlockList>;
};

/// Optional: what lists in tiles of this shape are like in each shape of box, the best first.
template <typename P>
concept HasBoxCosts = requires(const P& pattern, TileShape tile) {
    { pattern.box_costs(tile) } -> std::same_as<std::vector<BoxCost>>;
};

/// Optional: the rule is constant on blocks of this shape, so tiles that divide it need no masks.
template <typename P>
concept HasGranularity = requires(const P& pattern) {
    { pattern.granularity() } -> std::same_as<TileShape>;
};

/// Optional: throws Error where the pattern does not fit these lengths (patterns without a grid).
template <typename P>
concept HasAccepts = requires(const P& pattern, uint32_t n) {
    pattern.accepts(n, n);
};

/// Any pattern, as a cheap shared value.
class Pattern {
  public:
    template <PatternRule P>
    requires(!std::same_as<std::remove_cvref_t<P>, Pattern>) Pattern(P pattern)
        : rule_(std::make_shared<Model<P>>(std::move(pattern))) {}

    bool keeps(uint32_t q, uint32_t k) const { return rule_->keeps(q, k); }
    /// Sets bit j of words where the query sees keys[j]; kNoToken is seen by none.
    void add_bits(uint32_t q, std::span<const uint32_t> keys, std::span<uint32_t> words) const {
        rule_->add_bits(q, keys, words);
    }
    const Grid& grid() const { return rule_->grid; }
    const std::string& key() const { return rule_->key; }
    bool has_cover() const { return rule_->has_cover(); }
    Cover cover(TokenRange queries, TokenRange keys) const { return rule_->cover(queries, keys); }
    uint32_t heads() const { return rule_->heads(); }  ///< 0: all heads alike, any number
    Pattern head(uint32_t h) const { return heads() == 0 ? *this : rule_->head(h); }
    bool has_blocks() const { return rule_->has_blocks(); }
    BlockList blocks(TileShape tile) const { return rule_->blocks(tile); }
    /// Empty: tiles are not boxes.
    std::vector<BoxCost> box_costs(TileShape tile) const { return rule_->box_costs(tile); }
    TileShape granularity() const { return rule_->granularity(); }  ///< {0, 0}: of single tokens
    void accepts(uint32_t q_len, uint32_t kv_len) const { rule_->accepts(q_len, kv_len); }

  private:
    struct Rule {
        Rule(Grid grid, std::string key) : grid(std::move(grid)), key(std::move(key)) {}
        virtual ~Rule() = default;
        virtual bool keeps(uint32_t q, uint32_t k) const = 0;
        virtual void add_bits(uint32_t q, std::span<const uint32_t> keys,
                              std::span<uint32_t> words) const = 0;
        virtual bool has_cover() const = 0;
        virtual Cover cover(TokenRange queries, TokenRange keys) const = 0;
        virtual uint32_t heads() const = 0;
        virtual Pattern head(uint32_t h) const = 0;
        virtual bool has_blocks() const = 0;
        virtual BlockList blocks(TileShape tile) const = 0;
        virtual std::vector<BoxCost> box_costs(TileShape tile) const = 0;
        virtual TileShape granularity() const = 0;
        virtual void accepts(uint32_t q_len, uint32_t kv_len) const = 0;
        const Grid grid;
        const std::string key;
    };

    template <typename P>
    struct Model final : Rule {
        explicit Model(P p) : Rule(p.grid(), p.key()), pattern(std::move(p)) {}
        bool keeps(uint32_t q, uint32_t k) const override { return pattern.keeps(q, k); }
        void add_bits(uint32_t q, std::span<const uint32_t> keys,
                      std::span<uint32_t> words) const override {
            for (size_t j = 0; j < keys.size(); ++j)
                if (keys[j] != BlockList::kNoToken && pattern.keeps(q, keys[j]))
                    words[j / 32] |= 1u << (j % 32);
        }
        bool has_cover() const override { return HasCover<P>; }
        Cover cover([[maybe_unused]] TokenRange queries,
                    [[maybe_unused]] TokenRange keys) const override {
            if constexpr (HasCover<P>)
                return pattern.cover(queries, keys);
            else
                return Cover::partial;
        }
        uint32_t heads() const override {
            if constexpr (HasHeads<P>)
                return pattern.heads();
            else
                return 0;
        }
        Pattern head([[maybe_unused]] uint32_t h) const override {
            if constexpr (HasHeads<P>)
                return Pattern(pattern.head(h));
            else
                return Pattern(pattern);
        }
        bool has_blocks() const override { return HasBlocks<P>; }
        BlockList blocks([[maybe_unused]] TileShape tile) const override {
            if constexpr (HasBlocks<P>)
                return pattern.blocks(tile);
            else
                return {};
        }
        std::vector<BoxCost> box_costs([[maybe_unused]] TileShape tile) const override {
            if constexpr (HasBoxCosts<P>)
                return pattern.box_costs(tile);
            else
                return {};
        }
        TileShape granularity() const override {
            if constexpr (HasGranularity<P>)
                return pattern.granularity();
            else
                return {0, 0};
        }
        void accepts([[maybe_unused]] uint32_t q_len,
                     [[maybe_unused]] uint32_t kv_len) const override {
            if constexpr (HasAccepts<P>) pattern.accepts(q_len, kv_len);
        }
        P pattern;
    };

    std::shared_ptr<const Rule> rule_;
};

}  // namespace fovea
