#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "pipelines/denoise.h"
#include "vision/taps/taps.h"

namespace fovea {

/// Where a prompt's words are in a picture: maps of cross-attention while the picture is made, or
/// of one that is given. docs/attention-maps.md.
struct Lens {
    /// Noise enough that the words matter, picture enough that they find it.
    static constexpr std::array<float, 3> kReadingTimes{0.4f, 0.5f, 0.6f};

    struct Request : DenoiseRequest {
        uint64_t seed = 0;
        int width = 256, height = 256;
        /// Given: its latent is mixed with the seed's noise at each of `times`, and nothing is
        /// denoised. Resized to width × height.
        std::optional<Image> picture;
        std::vector<float> times{kReadingTimes.begin(), kReadingTimes.end()};
        TapOptions taps;
        std::function<DitHooks(DitHooks)> around;  ///< of every pass, inside of the taps; or none
    };
    struct Map {
        int step;                   ///< or the index of a time; −1: mean of them
        int64_t layer, head;        ///< −1: mean
        std::vector<float> shares;  ///< (tokens, words): of the attention that a token gives
    };
    struct Result {
        Image picture;                   ///< the made or, resized, the given one
        std::vector<std::string> words;  ///< as the vocabulary has them
        int64_t rows, columns;           ///< of the token grid
        std::vector<Map> maps;
        std::vector<float> received;  ///< (tokens): sum of what the taps kept of it, or empty
        /// (tokens) of the map, the mean of some words.
        std::vector<float> heat(const Map& map, const std::vector<size_t>& places) const;
    };

    /// Throws Error for a request that cannot be, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);
};

}  // namespace fovea
