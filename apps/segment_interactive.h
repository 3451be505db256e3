#pragma once

#include <chrono>
#include <string>

#include "pipelines/segment.h"

namespace fovea::apps {

/// Answers prompts from standard input, one a line as read_prompt() takes them, in lines of JSON on
/// standard output. Until its end, "quit" or a signal: RuntimeError with kInterrupted.
void answer_prompts(vk::Stream& stream, const SegmentModel& model, const std::string& name,
                    Image image, std::chrono::steady_clock::time_point start);

}  // namespace fovea::apps
