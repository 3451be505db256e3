#pragma once

namespace fovea {

/// Which axis of what attention and rope take goes before the other: (batch, heads, tokens,
/// head_dim), or (batch, tokens, heads, head_dim) as products write it, of which q, k and v may be
/// Tensor::columns() side by side.
enum class HeadLayout { heads_first, tokens_first };

}  // namespace fovea
