#include "pipelines/layout.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "backend/ops/elementwise.h"
#include "vision/mask.h"
#include "vision/prompt_words.h"
#include "vision/taps/taps.h"
#include "vision/taps/word_mask.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

// Drafts go down to this time: things are whole, their edges soft.
constexpr float kDraftEnd = 0.5f;
// The way goes on from this one: noise enough to make one picture of the parts, too little to move
// them.
constexpr float kGoesOn = 0.75f;
constexpr float kReadBelow = 0.7f;  // drafts' words have places from here on
constexpr float kThing = 0.3f;      // of a spread heat's range: where the thing is
constexpr float kRim = 0.1f;        // and where nothing of it is left
constexpr float kStretch = 1.5f;    // of a thing's proportions at most
constexpr float kNever = -1e4f;     // added to a logit
constexpr const char* kPlain = "on a white background";  // where a prompt says nothing of it

// The first of a request's steps that begins at a time or below.
int first_below(int steps, float time) {
    const auto times = flow_times(steps);
    const auto at = std::find_if(times.begin(), times.end(), [&](float t) { return t <= time; });
    return static_cast<int>(at - times.begin());
}

// The least of a heat map brought to 0, its most to 1.
void normalise(std::vector<float>& heat) {
    const auto [low, high] = std::minmax_element(heat.begin(), heat.end());
    const float least = *low, range = std::max(*high - *low, 1e-12f);
    for (float& value : heat) value = (value - least) / range;
}

/// What comes into a box.
struct Thing {
    Image picture, cover;  ///< cover: how much of each pixel is the thing's, in all channels
    Box place;             ///< where it is
    Box rim;               ///< what is taken with it
};

Thing thing_of(const Image& draft, const std::vector<float>& heat, const DitGrid& grid) {
    const auto rows = static_cast<int>(grid[1]), columns = static_cast<int>(grid[2]);
    const int h = draft.height / rows, w = draft.width / columns;
    Mask found{columns, rows, {}};
    Image cover{columns, rows, {}};
    for (const float value : heat) {
        found.hole.push_back(value >= kThing);
        cover.rgb.insert(cover.rgb.end(), 3,
                         std::clamp((value - kRim) / (kThing - kRim), 0.0f, 1.0f));
    }
    Box at = found.box();
    if (at.width() == 0) at = {0, 0, columns, rows};  // nothing stands out: all of the draft
    // A token more on every side: the thing's rim.
    return {.picture = draft,
            .cover = resize(cover, draft.width, draft.height),
            .place = {at.left * w, at.top * h, at.right * w, at.bottom * h},
            .rim = {std::max(at.left - 1, 0) * w, std::max(at.top - 1, 0) * h,
                    std::min(at.right + 1, columns) * w, std::min(at.bottom + 1, rows) * h}};
}

Thing thing_of(const Subject& subject) {
    Image cover{subject.picture.width, subject.picture.height, {}};
    for (const float value : subject.opacity) cover.rgb.insert(cover.rgb.end(), 3, value);
    const Box place = mask_of(cover).box();
    return {.picture = subject.picture, .cover = cover, .place = place, .rim = place};
}

// As large as the box lets it be, onto the canvas.
void set_into(Image& canvas, const LayoutBox& box, const Thing& thing) {
    float across = static_cast<float>(box.x1 - box.x0) / static_cast<float>(thing.place.width()),
          down = static_cast<float>(box.y1 - box.y0) / static_cast<float>(thing.place.height());
    across = std::min(across, kStretch * down);
    down = std::min(down, kStretch * across);
    const auto scaled = [](int length, float by) {
        return std::max(1, static_cast<int>(std::lround(static_cast<float>(length) * by)));
    };
    const Box &place = thing.place, &rim = thing.rim;
    const int width = scaled(rim.width(), across), height = scaled(rim.height(), down);
    const Image seen = resize(crop(thing.picture, rim), width, height),
                share = resize(crop(thing.cover, rim), width, height);
    // The middle of the thing on that of the box.
    const float middle_x =
                    static_cast<float>(place.left + place.right) / 2 - static_cast<float>(rim.left),
                middle_y =
                    static_cast<float>(place.top + place.bottom) / 2 - static_cast<float>(rim.top);
    const int at_x = (box.x0 + box.x1) / 2 - static_cast<int>(std::lround(middle_x * across)),
              at_y = (box.y0 + box.y1) / 2 - static_cast<int>(std::lround(middle_y * down));
    for (int y = std::max(0, -at_y); y < std::min(height, canvas.height - at_y); ++y)
        for (int x = std::max(0, -at_x); x < std::min(width, canvas.width - at_x); ++x)
            for (int c = 0; c < 3; ++c) {
                const auto from = static_cast<size_t>(3 * (y * width + x) + c);
                float& to =
                    canvas.rgb[static_cast<size_t>(3 * ((y + at_y) * canvas.width + x + at_x) + c)];
                to += share.rgb[from] * (seen.rgb[from] - to);
            }
}

// Tokens of which the subject is half or more.
Mask tokens_of(const Subject& subject, const LayoutBox& box, const DitGrid& grid, int width,
               int height) {
    Thing white = thing_of(subject);
    std::fill(white.picture.rgb.begin(), white.picture.rgb.end(), 1.0f);
    Image share{width, height, std::vector<float>(static_cast<size_t>(width * height) * 3, 0)};
    set_into(share, box, white);
    Mask seen = mask_of(resize(share, static_cast<int>(grid[2]), static_cast<int>(grid[1])));
    require(seen.count() > 0,
            "[subject] {} is too small for the model to see, expected a box of 32 pixels a side or "
            "more",
            to_text(box));
    return seen;
}

}  // namespace

int Layout::draft_steps(int steps) {
    return first_below(steps, kDraftEnd);
}

int Layout::first_step(int steps) {
    return std::min(first_below(steps, kGoesOn), steps - 1);
}

Layout::Layout(vk::Stream& stream, const Model& model, const DenoiseRequest& request,
               const std::vector<LayoutBox>& boxes, const std::vector<Subject>& subjects, int width,
               int height)
    : stream_(stream),
      model_(model),
      request_(request),
      boxes_(boxes),
      width_(width),
      height_(height),
      latent_{height / Autoencoder::kDown, width / Autoencoder::kDown,
              model.dit.config().latent_channels},
      grid_(model.dit.grid({1, latent_[0], latent_[1], latent_[2]})) {
    validate(boxes, width, height);
    const auto length = static_cast<int>(model.text.config().length);
    const LayoutTexts texts =
        split_prompt(model.tokenizer, model.tokenizer.encode(request.prompt, length).words, boxes);
    request_.prompt.clear();
    request_.each_prompt.clear();
    for (size_t i = 0; i < boxes.size(); ++i) {
        request_.each_prompt.push_back(fmt::format("{}", fmt::join(texts.inside[i], " ")));
        places_.push_back(find_phrase(model.tokenizer, texts.inside[i], boxes[i].name));
    }
    request_.each_prompt.push_back(
        texts.outside.empty() ? kPlain : fmt::format("{}", fmt::join(texts.outside, " ")));
    // Maps are read of the prompts' own samples: a perturbed branch has no part in a draft.
    Guidance guidance = guidance_of(request);
    std::erase_if(guidance.terms, [](const GuidanceTerm& term) { return !term.of_text(); });
    for (GuidanceTerm& term : guidance.terms) term.zero = 0;  // drafts have few steps
    if (guidance.terms.empty()) request_.cfg = 1;
    request_.guidance = guidance;
    request_.preview_every = 0;

    std::vector<float> mask;
    for (size_t i = 0; i < boxes.size(); ++i) {
        const auto found = std::find_if(subjects.begin(), subjects.end(), [&](const Subject& one) {
            return one.name == boxes[i].name;
        });
        if (found == subjects.end()) {
            drafted_.push_back(i);
            continue;
        }
        subjects_[i] = *found;
        const Mask seen = tokens_of(*found, boxes[i], grid_, width, height);
        mask.resize(seen.hole.size(), 0);
        for (size_t t = 0; t < mask.size(); ++t) mask[t] = std::max<float>(mask[t], seen.hole[t]);
    }
    if (!mask.empty()) mask_ = upload(stream, mask, {std::ssize(mask)}, DType::f32);
}

Layout::Drafts Layout::draw_drafts(uint64_t seed,
                                   const std::function<void(int done)>& on_step) const {
    const auto things = std::ssize(drafted_);
    const auto length = model_.text.config().length;
    DenoiseRequest request = request_;
    request.each_prompt.clear();
    for (const size_t box : drafted_) request.each_prompt.push_back(request_.each_prompt[box]);
    request.each_prompt.push_back(request_.each_prompt.back());
    request.on_step = [&](int done, int) {
        if (on_step) on_step(done);
    };
    const int steps = draft_steps(request.steps),
              reads = std::min(first_below(request.steps, kReadBelow), steps - 1);
    Taps taps(model_.dit, {.grid = grid_,
                           .samples = std::max<int64_t>(things, 1),
                           .steps = request.steps,
                           .length = length});
    std::vector<HeatSpread> spreads;
    for (int64_t i = 0; i < things; ++i) spreads.emplace_back(model_.dit, grid_, i);
    const Denoiser run(stream_, model_, request, latent_,
                       std::vector<uint64_t>(request.each_prompt.size(), seed),
                       [&](const Evaluation& at) {
                           DitHooks hooks;
                           if (at.step < reads) return hooks;
                           for (auto& spread : spreads) hooks = spread.around(std::move(hooks));
                           return taps.around(std::move(hooks), at.step);
                       });
    Tensor estimate;
    run.run({}, {.z = {}, .last = steps, .estimate = &estimate});
    const auto maps = to_host(stream_, taps.words(stream_).at(0).values);
    const auto tokens = static_cast<size_t>(grid_[1] * grid_[2]);
    Drafts drafts{.pictures = run.decode(estimate), .heats = {}};
    for (size_t i = 0; i < drafted_.size(); ++i) {
        std::vector<float> heat(tokens);
        for (size_t t = 0; t < tokens; ++t)
            for (const size_t place : places_[drafted_[i]])
                heat[t] += maps[(i * tokens + t) * static_cast<size_t>(length) + place];
        heat = spreads[i].spread(stream_, heat);
        normalise(heat);
        drafts.heats.push_back(std::move(heat));
    }
    return drafts;
}

Layout::Start Layout::start(uint64_t seed, const std::function<void(int done)>& on_step) const {
    const Drafts drafts = draw_drafts(seed, on_step);
    Image canvas = drafts.pictures.back();
    for (size_t i = 0; i < boxes_.size(); ++i) {
        const auto subject = subjects_.find(i);
        const auto draft = static_cast<size_t>(
            std::lower_bound(drafted_.begin(), drafted_.end(), i) - drafted_.begin());
        set_into(canvas, boxes_[i],
                 subject != subjects_.end()
                     ? thing_of(subject->second)
                     : thing_of(drafts.pictures[draft], drafts.heats[draft], grid_));
    }
    const Tensor z = convert(
        stream_, model_.autoencoder.encode(stream_, to_device(stream_, {canvas}, model_.dtype)),
        DType::f32);
    DenoiseRequest request = request_;
    request.each_prompt.clear();
    const Tensor noise = Denoiser(stream_, model_, request, latent_, {{seed}}).start();
    const auto first = static_cast<size_t>(first_step(request.steps));
    const float t = flow_times(request.steps)[first];
    return {.z = linear_combination(stream_, {{1 - t, z}, {t, noise}}), .canvas = z};
}

RegionTexts Layout::texts() const {
    const auto length = static_cast<int>(model_.text.config().length);
    std::vector<int32_t> ids;
    for (const auto& text : request_.each_prompt) {
        const auto own = model_.tokenizer.encode(text, length).ids;
        ids.insert(ids.end(), own.begin(), own.end());
    }
    const auto each = static_cast<size_t>(length), texts = request_.each_prompt.size(),
               tokens = static_cast<size_t>(grid_[1] * grid_[2]);
    std::vector<float> bias(tokens * texts * each, kNever);
    const auto hears = [&](size_t token, size_t text) {
        std::fill_n(bias.begin() + static_cast<std::ptrdiff_t>((token * texts + text) * each), each,
                    0.0f);
    };
    std::vector<bool> any(tokens, false);
    for (size_t i = 0; i < boxes_.size(); ++i) {
        const auto inside = tokens_in(boxes_[i], grid_[1], grid_[2], width_, height_);
        for (size_t t = 0; t < tokens; ++t)
            if (inside[t]) {
                hears(t, i);
                any[t] = true;
            }
    }
    for (size_t t = 0; t < tokens; ++t)
        if (!any[t]) hears(t, texts - 1);
    return {
        model_.dit.context(stream_, model_.text.forward(stream_, ids)),
        upload(stream_, bias, {1, static_cast<int64_t>(tokens), static_cast<int64_t>(texts * each)},
               DType::f32)};
}

}  // namespace fovea
