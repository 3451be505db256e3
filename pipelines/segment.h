#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "pipelines/segment_view.h"
#include "vision/models/text_encoder.h"
#include "vision/tokenizer.h"

/// What is where in a picture: by points, a box, words, or everything. docs/segmentation.md.
namespace fovea {

/// What segmentation needs of a model folder, on one device.
struct SegmentModel {
    Tokenizer tokenizer;
    TextEncoder text;
    Segmenter segmenter;
    std::string hash;  ///< of the weight files' bytes, 16 hex digits
    DType dtype;

    static SegmentModel load(vk::Stream& stream, const std::filesystem::path& folder, DType dtype);
};

/// A thing that was found.
struct Segment {
    int width = 0, height = 0;   ///< of the picture
    std::vector<float> opacity;  ///< (height, width) in [0, 1]
    float score = 0;             ///< IoU that the model expects of it, 0 to 1
    SegmentAnswer first;         ///< the model's first answer, most often about the whole picture
    SegmentAnswer last;          ///< and that which is drawn, perhaps about a window

    Mask mask() const;   ///< where the opacity is half or more
    bool shows() const;  ///< whether there is such a pixel
};

/// Asks for one thing; what is given goes together. Places in pixels, (0, 0) the picture's upper
/// left corner.
struct SegmentPrompt {
    struct Point {
        float x = 0, y = 0;
        bool positive = true;  ///< on the thing, else beside it
    };
    struct Corners {
        float left = 0, top = 0, right = 0, bottom = 0;
    };
    std::vector<Point> points;
    std::optional<Corners> box;            ///< around the thing
    std::string words;                     ///< what it is called: all things of that name
    bool search = true;                    ///< for words alone, in the picture's parts as well
    std::optional<SegmentAnswer> earlier;  ///< Segment::last of an answer to be made better

    bool empty() const { return points.empty() && !box && words.empty() && !earlier; }
};

SegmentPrompt::Corners corners_of(const Box& box);

/// Throws Error unless the prompt asks for something that can be: a point on the thing or a box or
/// words, points and box within a picture of this size.
void validate(const SegmentPrompt& prompt, int width, int height);

/// Throws Error with what is close for a word that the vocabulary does not have, and where there is
/// no word.
Tokenizer::Result known_words(const Tokenizer& tokenizer, const std::string& words, int length);

/// The mean of the text encoder's states at the words, (1, text width). Throws Error as
/// known_words().
Tensor encode_words(vk::Stream& stream, const SegmentModel& model, const std::string& words);

/// How `everything` looks for things.
struct SegmentEverything {
    int grid = 16;           ///< points along a side
    float score = 0.6f;      ///< least
    float stability = 0.4f;  ///< least IoU of the masks above logits of 1 and −1
    float same = 0.7f;       ///< IoU from which two masks are of one thing
    /// of the grid's points, and once these are answered of the things to be drawn as well
    std::function<void(int done, int total)> on_step;
    const std::atomic<bool>* cancel = nullptr;  ///< ends with Cancelled
};

/// How what is found is drawn: both better edges, and can be left out to see by how much.
struct SegmentDrawing {
    bool closer = true;  ///< looked at again from nearby, where that shows it larger
    bool edges = true;   ///< drawn along the picture's edges, else the mask enlarged linearly
};

/// A picture that is asked about. The model reads it once as a whole, and once more around what it
/// has found where that shows more.
class SegmentedPicture {
  public:
    SegmentedPicture(vk::Stream& stream, const SegmentModel& model, Image picture);

    const Image& picture() const { return picture_; }

    /// None where the model sees nothing that is meant, or less than is drawn. Throws Error as
    /// validate() and encode_words().
    std::optional<Segment> ask(const SegmentPrompt& prompt);
    /// All things, the surest first.
    std::vector<Segment> everything(const SegmentEverything& options);

    const SegmentView& whole();  ///< the picture as the model sees it
    /// Of an answer to a prompt about the whole, or a window, that shows something: asked once more
    /// about a window around the prompt's box, or else the answer's, and the points on the thing,
    /// where that shows it larger, and drawn along the picture's edges where these are finer than
    /// what the model sees. What was searched for is asked about part by part.
    Segment refine(const SegmentAnswer& first, const SegmentPrompt& prompt,
                   const SegmentDrawing& drawing = {});

  private:
    /// As ask(), drawn, perhaps of no pixel.
    std::optional<Segment> answer(const SegmentPrompt& prompt);
    /// The answer to words: about the whole and, in larger pictures, tiles.
    SegmentAnswer search(const SegmentPrompt& prompt);
    /// Draws the largest parts of what was found by words as a closer look at each shows them.
    void refine_parts(Segment& segment, const SegmentPrompt& prompt, bool edges);
    /// What a closer look at a box sees: a window around it, all of a side that it reaches beyond.
    Box window_around(const SegmentPrompt::Corners& box, int least = 0) const;
    /// That around a box, or around it and the points on the thing where these lie outside.
    Box window_of(const SegmentPrompt::Corners& box, const SegmentPrompt& prompt) const;
    std::shared_ptr<const SegmentView> near(const Box& window);
    /// Words, the points that lie in a view, and a box that does, as the decoder takes them.
    SegmentPrompts prompts_about(const SegmentView& view, const SegmentPrompt& prompt,
                                 const std::optional<SegmentPrompt::Corners>& box) const;
    /// An answer's logits as the decoder takes them, about a view.
    Tensor earlier(const SegmentAnswer& answer, const SegmentView& view);
    /// The answer to a prompt that corrects one about a window, from there; none where points or
    /// box reach out of it or the model sees nothing.
    std::optional<Segment> correct(const SegmentPrompt& prompt);
    /// The answer to one point, asked for once more with itself and its box beside the point.
    SegmentAnswer ask_again(const SegmentAnswer& first, const SegmentPrompt::Point& point);
    /// The answer from nearby to a box or points on what is too small to be seen in the picture as
    /// a whole.
    std::optional<Segment> ask_nearby(const SegmentPrompt& prompt);
    Segment draw(const SegmentAnswer& answer, bool edges) const;

    vk::Stream& stream_;
    const SegmentModel& model_;
    Image picture_;
    std::optional<SegmentView> whole_;
    std::vector<SegmentView> tiles_;                        ///< once words were searched for
    std::vector<std::shared_ptr<const SegmentView>> near_;  ///< the last ones, the latest last
};

}  // namespace fovea
