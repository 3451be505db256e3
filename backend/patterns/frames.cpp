#include "backend/patterns/frames.h"

#include <fmt/format.h>

#include <algorithm>

#include "backend/error.h"
#include "backend/patterns/sizes.h"

namespace fovea {

Frames::Frames(Grid grid, const FramesOptions& options)
    : grid_(std::move(grid)), options_(options) {
    require(!grid_.shape.empty(), "[frames] a grid expected, with the frames first, found none");
    const uint32_t tokens = checked_tokens("frames", grid_.shape);
    frames_ = grid_.shape.at(0);
    each_ = tokens / frames_;
    key_ = fmt::format("frames:{}x{}:{:d}{:d}{:d}{:d}{:d}", frames_, each_, options.first,
                       options.middle, options.last, options.previous, options.next);
}

bool Frames::sees(uint32_t frame, uint32_t other) const {
    const auto& o = options_;
    return other == frame || (o.first && other == 0) || (o.middle && other == frames_ / 2) ||
           (o.last && other + 1 == frames_) || (o.previous && other + 1 == frame) ||
           (o.next && other == frame + 1);
}

Cover Frames::cover(TokenRange queries, TokenRange keys) const {
    if (queries.begin >= queries.end || keys.begin >= keys.end) return Cover::full;
    uint32_t seen = 0, pairs = 0;
    for (uint32_t q = queries.begin / each_; q <= (queries.end - 1) / each_; ++q)
        for (uint32_t k = keys.begin / each_; k <= (keys.end - 1) / each_; ++k, ++pairs)
            seen += sees(q, k);
    return seen == 0 ? Cover::none : seen == pairs ? Cover::full : Cover::partial;
}

FramesOptions parse_frames(const std::string& text, char separator) {
    FramesOptions options;
    const std::pair<const char*, bool*> names[] = {{"first", &options.first},
                                                   {"middle", &options.middle},
                                                   {"last", &options.last},
                                                   {"previous", &options.previous},
                                                   {"next", &options.next}};
    if (text == "none") return options;
    for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(separator, begin), text.size());
        const std::string name = text.substr(begin, end - begin);
        bool found = false;
        for (const auto& [known, chosen] : names)
            if (name == known) *chosen = found = true;
        require(found,
                "[frames] \"{}\" found in \"{}\", expected none, or some of first, middle, last, "
                "previous, next with {} between them",
                name, text, separator);
        begin = end + 1;
    }
    return options;
}

}  // namespace fovea
