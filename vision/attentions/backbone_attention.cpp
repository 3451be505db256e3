#include "vision/attentions/backbone_attention.h"

#include <fmt/ranges.h>

#include <cmath>
#include <map>

#include "backend/ops/elementwise.h"
#include "backend/ops/grid.h"
#include "backend/ops/mix.h"
#include "backend/ops/rope.h"
#include "vision/attentions/modules.h"

namespace fovea {
namespace {

struct Entry {
    attentions::Module (*load)(const attentions::Source&);
    std::vector<std::string> options;
};

const std::map<std::string, Entry>& registry() {
    static const std::map<std::string, Entry> entries{
        {"biformer", {attentions::biformer, {"regions", "keep", "kernel"}}},
        {"cascaded", {attentions::cascaded, {"window", "key_dim", "kernels"}}},
        {"contmix", {attentions::contmix, {"kernel", "small", "pooled"}}},
        {"flow", {attentions::flow, {}}},
        {"focal", {attentions::focal, {"levels", "window"}}},
        {"halo", {attentions::halo, {"block", "halo"}}},
        {"hilo", {attentions::hilo, {"window", "low_share"}}},
        {"mala", {attentions::mala, {"kernel"}}},
        {"rala", {attentions::rala, {"kernel"}}},
    };
    return entries;
}

}  // namespace

std::vector<std::string> backbone_attentions() {
    std::vector<std::string> names;
    for (const auto& [name, entry] : registry()) names.push_back(name);
    return names;
}

std::unique_ptr<BackboneAttention> load_backbone_attention(const nlohmann::json& config,
                                                           const Loader& weights, int64_t width,
                                                           int64_t heads) {
    const bool named = config.is_string();
    require(
        named || (config.is_object() && config.contains("name") && config.at("name").is_string()),
        "[attentions] a name or an object with \"name\" expected, found {}", config.dump());
    const std::string name = named ? config : config.at("name");
    const auto found = registry().find(name);
    require(found != registry().end(), "[attentions] no attention is called \"{}\"; there are {}",
            name, fmt::join(backbone_attentions(), ", "));
    require(heads > 0 && width % heads == 0 && width / heads % 8 == 0,
            "[attentions] heads of a multiple of 8 dimensions expected, found {} of width {}",
            heads, width);
    const nlohmann::json options = named ? nlohmann::json::object() : config;
    const auto& known = found->second.options;
    for (const auto& [key, value] : options.items())
        require(key == "name" || std::find(known.begin(), known.end(), key) != known.end(),
                "[attentions] {} has no option \"{}\"; there are: {}", name, key,
                fmt::join(known, ", "));
    return found->second.load({weights, options, width, heads});
}

namespace attentions {

Tensor fit_grid(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns) {
    if (x.dim(1) == rows && x.dim(2) == columns) return x;
    return crop_grid(stream, x, 0, 0, rows, columns);
}

Tensor heads_of_grid(const Tensor& x, int64_t heads, int64_t part, int64_t parts) {
    return heads_of(x.reshape({x.dim(0), x.dim(1) * x.dim(2), x.dim(3)}), heads, part, parts);
}

Tensor turn(vk::Stream& stream, const Tensor& x, int64_t rows, int64_t columns) {
    const auto half = static_cast<int>(x.dim(3) / 2);
    const float pairs = static_cast<float>(half) / 2;
    // rope() has theta^(−j / n) for pair j of n.
    const float theta = pairs > 1 ? std::pow(10000.0f, pairs / (pairs - 1)) : 1;
    return rope(stream, x,
                {.axes = {0, half, half},
                 .grid = {1, rows, columns},
                 .theta = theta,
                 .norm_weight = {},
                 .layout = HeadLayout::tokens_first});
}

GatedEnd::GatedEnd(const Source& s)
    : value(s.weights.linear("qkvo", s.width, 4 * s.width, 2 * s.width, s.width)),
      gate(s.weights.linear("qkvo", s.width, 4 * s.width, 3 * s.width, s.width)),
      out(s.weights.linear("out", s.width, s.width)),
      local(s.weights.depthwise("local", s.width, s.options.value("kernel", 5))) {}

Tensor GatedEnd::finish(vk::Stream& stream, const Tensor& x, const Tensor& v, const Tensor& o,
                        const Tensor& residual) const {
    const Tensor sum = depthwise_conv2d(stream, v, local.weight,
                                        {.bias = local.bias, .residual = o.reshape(x.shape())});
    return linear_residual(stream, multiply(stream, sum, linear(stream, x, gate)), out, residual);
}

}  // namespace attentions
}  // namespace fovea
