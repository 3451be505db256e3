#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

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

/// Optional, for speed: appends the keys of one query as runs, in any order. Makes the cost of a
/// block list that of the pairs kept, not of all pairs.
template <typename P>
concept HasRuns = requires(const P& pattern, uint32_t q, std::vector<TokenRange>& runs) {
    pattern.runs(q, runs);
};

/// Any pattern, as a cheap shared value.
class Pattern {
  public:
    template <PatternRule P>
    requires(!std::same_as<std::remove_cvref_t<P>, Pattern>) Pattern(P pattern)
        : rule_(std::make_shared<Model<P>>(std::move(pattern))) {}

    bool keeps(uint32_t q, uint32_t k) const { return rule_->keeps(q, k); }
    const Grid& grid() const { return rule_->grid; }
    const std::string& key() const { return rule_->key; }
    Cover cover(TokenRange queries, TokenRange keys) const { return rule_->cover(queries, keys); }
    bool has_runs() const { return rule_->has_runs(); }
    void runs(uint32_t q, std::vector<TokenRange>& out) const { rule_->runs(q, out); }

  private:
    struct Rule {
        Rule(Grid grid, std::string key) : grid(std::move(grid)), key(std::move(key)) {}
        virtual ~Rule() = default;
        virtual bool keeps(uint32_t q, uint32_t k) const = 0;
        virtual Cover cover(TokenRange queries, TokenRange keys) const = 0;
        virtual bool has_runs() const = 0;
        virtual void runs(uint32_t q, std::vector<TokenRange>& out) const = 0;
        const Grid grid;
        const std::string key;
    };

    template <typename P>
    struct Model final : Rule {
        explicit Model(P p) : Rule(p.grid(), p.key()), pattern(std::move(p)) {}
        bool keeps(uint32_t q, uint32_t k) const override { return pattern.keeps(q, k); }
        Cover cover([[maybe_unused]] TokenRange queries,
                    [[maybe_unused]] TokenRange keys) const override {
            if constexpr (HasCover<P>)
                return pattern.cover(queries, keys);
            else
                return Cover::partial;
        }
        bool has_runs() const override { return HasRuns<P>; }
        void runs([[maybe_unused]] uint32_t q,
                  [[maybe_unused]] std::vector<TokenRange>& out) const override {
            if constexpr (HasRuns<P>) pattern.runs(q, out);
        }
        P pattern;
    };

    std::shared_ptr<const Rule> rule_;
};

}  // namespace fovea
