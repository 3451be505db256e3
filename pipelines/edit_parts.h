#pragma once

#include <functional>
#include <initializer_list>
#include <vector>

#include "pipelines/edit.h"
#include "vision/prompt_words.h"

/// The parts of Edit (edit.cpp): what stays the same over an edit, and where it may change what.
namespace fovea::editing {

/// What stays the same over an edit.
struct Walk {
    vk::Stream& stream;
    const Model& model;
    const Edit::Request& request;
    Shape shape;  ///< of the latent: (1, height, width, channels), or of a clip (1, frames, …)
    DitGrid grid;
    DitHooks::Attention attention;  ///< self-attention of all passes
    Tokenizer::Result source, target;
    PromptChange change;
    Dit::Context of_source, of_all;  ///< the source alone; all samples of the batch
    std::vector<float> times;

    bool guided() const { return request.cfg != 1; }
    int64_t frames() const { return grid[0]; }
    int64_t frame_tokens() const { return grid[1] * grid[2]; }
    void check_cancel() const {
        if (request.cancel && *request.cancel) throw Cancelled();
    }
};

/// Of prompts, a sample of the batch each.
Dit::Context context_of(vk::Stream& stream, const Model& model,
                        std::initializer_list<const Tokenizer::Result*> prompts);

/// The model's velocity, f32 as z. hooks.attention empty: the walk's.
Tensor forward(const Walk& walk, const Tensor& z, float t, const Dit::Context& context,
               DitHooks hooks = {});

/// Words that change together, as places in each prompt.
struct Changed {
    std::vector<size_t> source, target;
    bool background = false;  ///< they say how it is
};
/// Where the request names the mask's words: in one prompt or in both. Throws Error for a word that
/// neither has.
Changed named_words(const Walk& walk);

/// Where it may change, (frames · rows · columns): 1 may.
struct Masks {
    std::vector<float> words;   ///< at words that change
    std::vector<float> around;  ///< all but the things that stay, for another background
    /// Latents at the rim of things change with what is around: tokens hold some of both.
    std::vector<float> of_latents(const DitGrid& grid) const;
};
/// latents: of the inversion, at the walk's times.
Masks find_masks(const Walk& walk, const std::vector<Tensor>& latents);

/// The edited frame where it may change, the given one elsewhere. At changed words the seam lies in
/// the token around, where both differ by the autoencoder alone. Another background ends where the
/// things do: the mask of tokens is drawn along the given frame's edges.
Image composite(const Walk& walk, int64_t frame, const Image& given, const Image& edited,
                const Masks& masks);

}  // namespace fovea::editing
