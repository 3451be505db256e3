#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

#include "backend/ops/activation.h"
#include "backend/ops/attention.h"
#include "backend/tensor.h"
#include "vision/weights.h"

/// Thin pieces of models: weights in the engine's layout, and the handful of layers that every
/// transformer here has.
namespace fovea {

/// y = x weight + bias. weight (in, out): the transpose of PyTorch's.
struct Linear {
    Tensor weight, bias;
};

/// weight (kh, kw, in, out), bias (out) or absent: PyTorch's (out, in, kh, kw) rearranged for NHWC.
struct Convolution {
    Tensor weight, bias;
    int stride = 1;
};

struct Affine {
    Tensor weight, bias;  ///< (n)
};

/// Reads tensors of one weights file to the device under a common name prefix. Every read checks
/// the shape; errors name file, tensor, found and expected.
class Loader {
  public:
    Loader(vk::Stream& stream, const Weights& weights, DType dtype, std::string prefix = {});

    Loader at(const std::string& name) const;  ///< the same with "name." appended to the prefix
    bool has(const std::string& name) const;
    int64_t extent(const std::string& name, size_t axis) const;  ///< of the stored shape

    Tensor tensor(const std::string& name, const Shape& shape) const;
    Linear linear(const std::string& name, int64_t in, int64_t out) const;
    /// Outputs first … first + count − 1 of a stored linear of `out`.
    Linear linear(const std::string& name, int64_t in, int64_t out, int64_t first,
                  int64_t count) const;
    /// A bias is read when the file has one.
    Convolution convolution(const std::string& name, int64_t in, int64_t out, int64_t size,
                            int stride = 1) const;
    /// Of single channels: (n, 1, size, size) stored, weight (size, size, n).
    Convolution depthwise(const std::string& name, int64_t n, int64_t size) const;
    Affine affine(const std::string& name, int64_t n) const;
    /// A stored tensor on the host, for what is computed from weights when they are loaded.
    std::vector<float> floats(const std::string& name, const Shape& shape) const;
    Tensor put(std::span<const float> values, const Shape& shape) const;  ///< as loaded ones
    Tensor put_f32(std::span<const float> values, const Shape& shape) const;

  private:
    vk::Stream& stream_;
    const Weights& weights_;
    DType dtype_;
    std::string prefix_;
};

/// The pre-norm block that the text encoder and the evaluator have in common.
struct EncoderBlock {
    Affine norm1, norm2;
    Linear qkv, out, fc1, fc2;
};
/// The width of the hidden layer comes from the stored shape. Without attention qkv and out stay
/// absent.
EncoderBlock load_encoder_block(const Loader& weights, int64_t width, bool with_attention = true);
/// y plus the block's MLP of it.
Tensor encoder_mlp(vk::Stream& stream, const EncoderBlock& block, const Tensor& y);
/// x plus the attention's heads (batch, tokens, heads, head_dim) projected, plus the MLP of that.
Tensor finish_encoder_block(vk::Stream& stream, const EncoderBlock& block, const Tensor& x,
                            const Tensor& heads);

/// The JSON object under "config" in a weights file's metadata; throws Error when it is missing or
/// its "type" is another.
nlohmann::json model_config(const Weights& weights, const std::string& type);

/// activation(x_activation(x) weight + bias)
Tensor linear(vk::Stream& stream, const Tensor& x, const Linear& layer,
              Activation activation = Activation::none, Activation x_activation = Activation::none);
/// residual + gate · (x weight + bias); gate (batch, out) may be absent
Tensor linear_residual(vk::Stream& stream, const Tensor& x, const Linear& layer,
                       const Tensor& residual, const Tensor& gate = {});
Tensor layer_norm(vk::Stream& stream, const Tensor& x, const Affine& layer);

/// Part `part` of x (batch, tokens, parts·heads·head_dim): (batch, tokens, heads, head_dim), a view
/// of its columns where there are more parts.
Tensor heads_of(const Tensor& x, int64_t heads, int64_t part = 0, int64_t parts = 1);
/// (batch, tokens, heads, head_dim) → (batch, tokens, heads·head_dim), a view
Tensor merge_heads(const Tensor& x);
/// Attention with tokens first: q, k and v as of heads_of(), o likewise.
Tensor attend(vk::Stream& stream, const Tensor& q, const Tensor& k, const Tensor& v,
              const Pattern& pattern, AttentionOptions options = {});

}  // namespace fovea
