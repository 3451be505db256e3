#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "vision/layers.h"

/// Attentions of vision backbones from the literature, each a layer that mixes the tokens of a
/// grid, chosen by name in an encoder's config. docs/backbones.md.
namespace fovea {

class BackboneAttention {
  public:
    virtual ~BackboneAttention() = default;

    /// residual + what the layer makes of x: both (batch, rows, columns, width), x normed.
    virtual Tensor forward(vk::Stream& stream, const Tensor& x, const Tensor& residual) const = 0;
};

std::vector<std::string> backbone_attentions();  ///< names that load_backbone_attention() knows

/// `config` is a name, or an object with "name" and options of that attention; weights lie below
/// the loader's prefix. Throws Error with the names or options there are.
std::unique_ptr<BackboneAttention> load_backbone_attention(const nlohmann::json& config,
                                                           const Loader& weights, int64_t width,
                                                           int64_t heads);

}  // namespace fovea
