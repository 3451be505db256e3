#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "backend/patterns/pattern.h"
#include "backend/patterns/sizes.h"

namespace fovea {

struct IdentityOptions {
    uint32_t tokens = 0;  ///< image tokens
    uint32_t text_before = 0, text_after = 0;
};

/// The identity map on the image part of joint attention over image and text, the perturbed branch
/// of PAG for such models (arXiv 2403.17377): an image query
/// sees itself and all text, text sees everything. Without text o = v.
class Identity {
  public:
    explicit Identity(const IdentityOptions& options)
        : begin_(options.text_before),
          end_(begin_ + options.tokens),
          all_(checked_tokens("identity", std::array{options.tokens},
                              uint64_t{options.text_before} + options.text_after)) {}

    bool keeps(uint32_t q, uint32_t k) const { return q == k || !is_image(q) || !is_image(k); }
    Grid grid() const { return {.shape = {all_}}; }
    std::string key() const { return fmt::format("identity:{}:{}:{}", begin_, end_, all_); }
    Cover cover(TokenRange queries, TokenRange keys) const {
        const TokenRange q = image_part(queries), k = image_part(keys);
        if (q.begin >= q.end || k.begin >= k.end) return Cover::full;
        const bool text = q != queries || k != keys, apart = q.end <= k.begin || k.end <= q.begin;
        if (q == k && q.end - q.begin == 1) return Cover::full;
        return apart && !text ? Cover::none : Cover::partial;
    }

  private:
    bool is_image(uint32_t t) const { return t >= begin_ && t < end_; }
    TokenRange image_part(TokenRange r) const {
        return {std::max(r.begin, begin_), std::min(r.end, end_)};
    }

    uint32_t begin_, end_, all_;
};

inline Identity identity(const IdentityOptions& options) {
    return Identity(options);
}

}  // namespace fovea
