#pragma once

#include <array>
#include <optional>
#include <vector>

#include "vision/layers.h"

/// Convolutional autoencoder of the TAESD family (madebyollin/taesd, variant taef2), 8× down.
/// Pictures are (batch, height, width, 3) in [0, 1], latents (batch, height/8, width/8, channels).
/// Structure: docs/model-format.md.
namespace fovea {

struct AutoencoderBlock {
    Convolution a, b, c;
    std::optional<Convolution> skip;  ///< where the width changes
    struct Pool {
        Convolution widen, narrow;
        Affine norm;
    };
    std::optional<Pool> pool;  ///< the wide branch at the lowest resolution
};

class Encoder {
  public:
    /// Channel counts come from the stored shapes.
    explicit Encoder(const Loader& weights);
    /// Height and width are multiples of 8.
    Tensor forward(vk::Stream& stream, const Tensor& picture) const;

  private:
    struct Stage {
        Convolution down;
        std::array<AutoencoderBlock, 3> blocks;
    };
    Convolution in_;
    AutoencoderBlock first_;
    std::vector<Stage> stages_;
    Convolution out_;
};

class Decoder {
  public:
    explicit Decoder(const Loader& weights);
    /// Not clamped: values slightly outside [0, 1] are normal.
    Tensor forward(vk::Stream& stream, const Tensor& latent) const;
    int64_t latent_channels() const { return in_.weight.dim(2); }

  private:
    struct Stage {
        std::array<AutoencoderBlock, 3> blocks;
        Convolution up;  ///< after nearest ×2
    };
    Convolution in_;
    std::vector<Stage> stages_;
    AutoencoderBlock last_;
    Convolution out_;
};

/// Both, with the statistics that bring latents to unit scale for diffusion: z = (latent − mean) /
/// std per channel.
class Autoencoder {
  public:
    Autoencoder(vk::Stream& stream, const Weights& weights, DType dtype);
    Tensor encode(vk::Stream& stream, const Tensor& picture) const;  ///< → normalised z
    Tensor decode(vk::Stream& stream, const Tensor& z) const;
    int64_t latent_channels() const { return decoder_.latent_channels(); }
    static constexpr int64_t kDown = 8;

  private:
    Encoder encoder_;
    Decoder decoder_;
    Tensor to_unit_scale_, to_unit_shift_, from_unit_scale_, from_unit_shift_;  ///< (channels)
};

}  // namespace fovea
