#pragma once

#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "vision/attentions/backbone_attention.h"

/// What the files of this folder share.
namespace fovea::attentions {

/// What every module is loaded from. `options` is the config's object, empty where it is a name.
struct Source {
    const Loader& weights;
    const nlohmann::json& options;
    int64_t width, heads;

    int64_t head_dim() const { return width / heads; }
};

using Module = std::unique_ptr<BackboneAttention>;

Module biformer(const Source& source);
Module cascaded(const Source& source);
Module contmix(const Source& source);
Module flow(const Source& source);
Module focal(const Source& source);
Module halo(const Source& source);
Module hilo(const Source& source);
Module mala(const Source& source);
Module rala(const Source& source);

inline int64_t round_up(int64_t n, int64_t step) {
    return (n + step - 1) / step * step;
}

/// The first rows × columns tokens of x, zeros where it has fewer.
Tensor fit_grid(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns);

/// (batch, rows, columns, width) as heads of tokens, a view: part `part` of `parts`.
Tensor heads_of_grid(const Tensor& x, int64_t heads, int64_t part = 0, int64_t parts = 1);

/// Rotary embedding of MALA and RALA: half of a head for rows, half for columns, frequencies
/// 10000^(−j / (n − 1)) for pair j of n. x (batch, rows · columns, heads, head_dim).
Tensor turn(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns);

/// What is between the linear attention and the residual of MALA and RALA: a depthwise convolution
/// of the values is added, a gate multiplies.
struct GatedEnd {
    Linear value, gate, out;
    Convolution local;

    explicit GatedEnd(const Source& source);
    Tensor finish(vk::Stream& stream, const Tensor& x, const Tensor& v, const Tensor& o,
                  const Tensor& residual) const;
};

}  // namespace fovea::attentions
