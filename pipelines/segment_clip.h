#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <vector>

#include "pipelines/segment.h"

namespace fovea {

/// Carries a thing through the frames of a clip, forwards and backwards from the one that is asked
/// about, by attention to what is remembered of that frame and of the one before.
struct SegmentClip {
    struct Request {
        SegmentPrompt prompt;
        int frame = 0;  ///< that the prompt is about
        std::function<void(int done, int total)> on_step;
        const std::atomic<bool>* cancel = nullptr;  ///< ends with Cancelled
    };
    /// Of each frame, none where the thing is not seen; nowhere where it is not in the frame that
    /// was asked about. Throws Error for a request that cannot be.
    static std::vector<std::optional<Segment>> run(vk::Stream& stream, const SegmentModel& model,
                                                   const std::vector<Image>& frames,
                                                   const Request& request);
};

}  // namespace fovea
