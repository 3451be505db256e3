#pragma once

#include <string>
#include <vector>

#include "vision/image.h"
#include "vision/mask.h"

namespace fovea::apps::bench {

/// A picture or a clip and a change of it, of training/edit_cases.py; or a picture alone, of
/// training/evaluate_segment.py --cases.
struct Case {
    struct Object {
        std::string name;
        Mask mask;  ///< 1 where it is
    };
    /// Where something is: its centre and its size in sides of the frame.
    struct Place {
        double x, y, size, degrees;  ///< degrees: turned clockwise
    };
    std::vector<Image> frames, regions;  ///< regions: white where the change may be seen
    std::vector<Place> path;             ///< of clips: how what may change moves, a frame each
    std::string name, prompt, target;
    std::string kind;             ///< of the change, else of the picture
    std::vector<Object> objects;  ///< of pictures

    bool is_clip() const { return frames.size() > 1; }
    const Image& picture() const { return frames[0]; }
    const Image& region() const { return regions[0]; }
};

struct CaseChoice {
    int limit = 0;       ///< at most; 0: all
    std::string kind;    ///< these alone; empty: all
    bool clips = false;  ///< cases of clips may be read
    bool edits = true;   ///< cases without a change are wrong
};

/// Of a folder: pictures, or clips of equally many frames. Throws Error, which names the file,
/// where there is none of these or a case is wrong.
std::vector<Case> read_cases(const std::string& folder, const CaseChoice& choice);

/// PSNR of the pixels that the region leaves out; 0 where it leaves out none.
double psnr_outside(const Image& a, const Image& b, const Image& region);

/// The name of the next object of another picture that is none of this one's, or nullptr.
const std::string* another_name(const std::vector<Case>& cases, size_t own);

}  // namespace fovea::apps::bench
