#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vision/image.h"
#include "vision/layout.h"
#include "vision/models/evaluator.h"

/// What a picture shows, and whether that is what a prompt asks for.
namespace fovea {

/// Names the evaluator and the prompts share: concepts.json of a model folder.
struct Concepts {
    std::vector<std::string> objects, styles, colors, relations;
    /// Phrase → object index: every name and alias.
    std::vector<std::pair<std::string, size_t>> phrases;

    static Concepts load(const std::filesystem::path& folder);
};

/// What a prompt asks for, as far as the concepts go.
struct Wanted {
    std::vector<size_t> objects;  ///< in the order of the prompt
    std::string color;            ///< of the background, empty: not said
    std::string style;            ///< empty: not said
    std::string relation;  ///< "left", "right", "above" or "below": the first object's place seen
                           ///< from the second; empty: not said
};

Wanted read_prompt(const Concepts& concepts, std::string_view prompt);

struct SeenObject {
    size_t object;
    float mass;        ///< sum over tokens of the class probability
    float confidence;  ///< its maximum over tokens
    float x, y;        ///< centre, 0 to 1 from the left and the top
};

struct Seen {
    std::vector<SeenObject> objects;  ///< by falling mass, at least one
    std::string color, style;
    float color_confidence, style_confidence;
};

/// Where a is seen from b, by the larger of the two offsets: "left", "right", "above" or "below".
std::string relation_between(const SeenObject& a, const SeenObject& b);

/// Each kind of expectation that the prompt names: met or not; absent where it names none.
struct Verdict {
    std::optional<bool> objects, color, style, relation;
    bool all() const {
        return objects.value_or(true) && color.value_or(true) && style.value_or(true) &&
               relation.value_or(true);
    }
};

/// All wanted objects among the same number of most present ones, and so on.
Verdict judge(const Wanted& wanted, const Seen& seen);

/// How sure the evaluator is of what was asked, 0 to 1: the mean over wanted objects, background
/// and style of its confidence in each, 0 for another background or style. Of a prompt that asks
/// for nothing known: its confidence in the most present object.
double rating(const Wanted& wanted, const Seen& seen);

/// As many prompts of one object on a plain background, all objects before one comes again.
std::vector<std::string> plain_prompts(const Concepts& concepts, int count);

/// As a picture file shows it: in steps of 1/255.
Image as_saved(const Image& picture);

class Scorer {
  public:
    Scorer(vk::Stream& stream, const std::filesystem::path& model_folder, DType dtype);
    const Concepts& concepts() const { return concepts_; }
    /// Pictures of any size are resized to the evaluator's.
    std::vector<Seen> look(vk::Stream& stream, const std::vector<Image>& pictures) const;
    /// Where the evaluator sees each of some objects: the box of the tokens that it takes for the
    /// object, to 16 of its 256 pixels; none where it sees no such thing.
    std::vector<std::optional<LayoutBox>> locate(vk::Stream& stream, const Image& picture,
                                                 const std::vector<size_t>& objects) const;

  private:
    Evaluator::Logits read(vk::Stream& stream, const std::vector<Image>& pictures) const;
    Concepts concepts_;
    Evaluator evaluator_;
    DType dtype_;
};

}  // namespace fovea
