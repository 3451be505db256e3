#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "vision/image.h"
#include "vision/tokenizer.h"

/// Where things of a prompt shall be, as boxes of the picture.
namespace fovea {

struct LayoutBox {
    std::string name;                    ///< words of the prompt, side by side
    int x0 = 0, y0 = 0, x1 = 0, y1 = 0;  ///< pixels: columns x0 to x1 − 1, rows y0 to y1 − 1
};

/// "apple=20,30,120,140": name, then x0, y0, x1, y1. Throws Error for another form.
LayoutBox parse_box(const std::string& text);
std::string to_text(const LayoutBox& box);

/// What a thing of the prompt looks like.
struct Subject {
    std::string name;  ///< a box's
    Image picture;
    std::vector<float> opacity;  ///< (height, width): 1 where the thing is, 0 around it
};

/// "apple=cutout.png": name, then a PNG with transparent surroundings. Throws Error for another
/// form, a file that is no picture, and one that is opaque or transparent all over.
Subject load_subject(const std::string& text);

/// Throws Error for a box that is empty or reaches beyond the picture.
void validate(const std::vector<LayoutBox>& boxes, int width, int height);

/// Common area by the area of both together, 0 to 1.
double overlap(const LayoutBox& a, const LayoutBox& b);

/// What a prompt says inside each box and outside all of them, as words of the vocabulary. A box
/// has its name with the words before it ("a red apple") and all that follows the last of the
/// names, such as the background; outside is what the prompt says but for the names.
struct LayoutTexts {
    std::vector<std::vector<std::string>> inside;  ///< a box each
    std::vector<std::string> outside;
    std::vector<std::vector<size_t>> places;  ///< of each box's name in the prompt
};

/// Throws Error for a name that is not in the prompt. Of several boxes of one name each has the
/// next place in the prompt, while there is one.
LayoutTexts split_prompt(const Tokenizer& tokenizer, const std::vector<std::string>& words,
                         const std::vector<LayoutBox>& boxes);

/// Tokens of a (rows, columns) grid over the picture whose middle is in the box; at least the one
/// around its centre.
std::vector<bool> tokens_in(const LayoutBox& box, int64_t rows, int64_t columns, int width,
                            int height);

}  // namespace fovea
