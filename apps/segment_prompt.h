#pragma once

#include <string>

#include "pipelines/segment.h"

/// Prompts as users type them. Throws Error that names `what`.
namespace fovea::apps {

/// "120,80", or several pairs. A pixel is asked about at its centre.
void add_points(SegmentPrompt& prompt, const std::string& what, const std::string& text,
                bool positive);
/// "40,40,200,200", in place of an earlier one.
void set_box(SegmentPrompt& prompt, const std::string& what, const std::string& text);

/// "point 120,80 box 10,10,200,200", "words the red apple", "correct negative 30,40"; of
/// `earlier`, the last prompt with its answer, corrections go on, a box in place of its box.
SegmentPrompt read_prompt(const std::string& line, const SegmentPrompt& earlier);

}  // namespace fovea::apps
