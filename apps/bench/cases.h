#pragma once

#include <string>
#include <vector>

#include "vision/image.h"

namespace fovea::apps::bench {

/// A picture with known objects and a change of it, of training/edit_cases.py.
struct Case {
    struct Object {
        std::string name;
        Image mask;  ///< white where it is
    };
    Image picture, region;  ///< region: white where the change may be seen
    std::string name, prompt, kind, target;
    std::vector<Object> objects;
};

/// Those of a folder, or of one kind alone; at most `limit`, 0: all. Throws Error where there is
/// none.
std::vector<Case> read_cases(const std::string& folder, int limit, const std::string& kind = {});

}  // namespace fovea::apps::bench
