#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "pipelines/text_to_image.h"

namespace fovea {

/// Which heads are worth guiding away from: the greedy search of HeadHunter
/// (github.com/cvlab-kaist/HeadHunter). Each round tries every head that is left, perturbed
/// together with those chosen so far, and keeps the best few.
struct HeadHunt {
    struct Request {
        TextToImage::Request picture;  ///< prompts in each_prompt, one a seed; guidance: what acts
                                       ///< beside the heads'
        float scale = 3, u = 1;        ///< of the heads' softpag term
        std::vector<int64_t> blocks;   ///< whose heads are tried; empty: all
        int rounds = 1, top = 3;       ///< heads chosen a round
        std::filesystem::path state;   ///< JSON, written after every trial; found: gone on with
        /// Higher is better; one number a picture, in the order of the seeds.
        std::function<std::vector<double>(const std::vector<Image>&)> score;
        std::string objective;  ///< in words: a state of another is refused
        std::function<void(int done, int total)> on_trial;
    };

    struct Trial {
        HeadStrength head;
        double score;  ///< mean over all pictures, the heads of earlier rounds perturbed as well
    };
    struct Result {
        double score_without = 0;                ///< of the pictures without the heads
        std::vector<std::vector<Trial>> rounds;  ///< best first
        std::vector<Trial> chosen;               ///< in the order of choice
    };

    /// Throws Error for a state of another search, Cancelled.
    static Result run(vk::Stream& stream, const Model& model, const Request& request);

    /// The request's pictures under these heads; none: without.
    static std::vector<Image> draw(vk::Stream& stream, const Model& model, const Request& request,
                                   const std::vector<HeadStrength>& heads);
};

}  // namespace fovea
