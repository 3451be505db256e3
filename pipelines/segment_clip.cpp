#include "pipelines/segment_clip.h"

#include "backend/error.h"
#include "pipelines/denoise.h"

namespace fovea {

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
    const Tensor of_asked = remember(asked.whole(), first->first, Segmenter::Frame::asked);
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
            if (answer.shows()) found[index] = picture.refine(answer, {});
        }
    }
    step();
    return found;
}

}  // namespace fovea
