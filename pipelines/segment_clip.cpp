#include "pipelines/segment_clip.h"

#include <algorithm>
#include <cmath>

#include "backend/error.h"
#include "pipelines/denoise.h"

namespace fovea {
namespace {

/// What is drawn of a frame, as an answer about the whole of it: the model's own may be about a
/// window, or in the resolution of tiles.
SegmentAnswer answer_about(const SegmentView& whole, const Segment& drawn) {
    constexpr float kLeast = 1e-3f;  // of opacity: logits stay within what the model gives
    SegmentAnswer answer{.window = whole.window,
                         .rows = static_cast<int>(4 * whole.features.rows),
                         .columns = static_cast<int>(4 * whole.features.columns),
                         .logits = {}};
    Image opacity{drawn.width, drawn.height, {}};
    for (const float value : drawn.opacity) opacity.rgb.insert(opacity.rgb.end(), 3, value);
    opacity = resize(opacity, answer.columns, answer.rows);
    for (size_t i = 0; i < opacity.rgb.size(); i += 3) {
        const float share = std::clamp(opacity.rgb[i], kLeast, 1 - kLeast);
        answer.logits.push_back(std::log(share / (1 - share)));
    }
    return answer;
}

}  // namespace

std::vector<std::optional<Segment>> SegmentClip::run(vk::Stream& stream, const SegmentModel& model,
                                                     const std::vector<Image>& frames,
                                                     const Request& request) {
    const auto count = static_cast<int>(frames.size());
    require(request.frame >= 0 && request.frame < count,
            "[segment] frame {} found, expected 0 to {} of this clip", request.frame, count - 1);
    const Segmenter& segmenter = model.segmenter;
    std::vector<std::optional<Segment>> found(frames.size());
    int done = 0;
    const auto step = [&] {
        if (request.cancel != nullptr && *request.cancel) throw Cancelled();
        if (request.on_step) request.on_step(done++, count);
    };
    const auto remember = [&](const SegmentView& view, const SegmentAnswer& answer,
                              Segmenter::Frame kind) {
        return segmenter.remember(
            stream, view.features,
            upload(stream, answer.logits, {1, answer.rows, answer.columns}, model.dtype), kind);
    };

    step();
    SegmentedPicture asked(stream, model, frames[static_cast<size_t>(request.frame)]);
    auto first = asked.ask(request.prompt);
    if (!first) return found;
    const Tensor of_asked =
        remember(asked.whole(), answer_about(asked.whole(), *first), Segmenter::Frame::asked);
    found[static_cast<size_t>(request.frame)] = std::move(first);

    for (const int direction : {1, -1}) {
        std::vector<Tensor> memory{of_asked};
        for (int at = request.frame + direction; at >= 0 && at < count; at += direction) {
            step();
            const auto index = static_cast<size_t>(at);
            SegmentedPicture picture(stream, model, frames[index]);
            SegmentView recalled = picture.whole();
            recalled.features = segmenter.recall(stream, recalled.features, memory);
            const SegmentAnswer answer = answers(stream, segmenter, recalled, {}, false).front();
            memory = {of_asked, remember(picture.whole(), answer, Segmenter::Frame::other)};
            if (!answer.shows()) continue;
            if (auto drawn = picture.refine(answer, {}); drawn.shows())
                found[index] = std::move(drawn);
        }
    }
    step();
    return found;
}

}  // namespace fovea
