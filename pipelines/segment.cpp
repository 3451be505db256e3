#include "pipelines/segment.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "backend/error.h"
#include "backend/log.h"
#include "pipelines/denoise.h"
#include "pipelines/model.h"
#include "vision/guided_filter.h"

namespace fovea {
namespace {

constexpr std::array kFiles{"text.safetensors", "segment.safetensors"};

// A closer look is a window of so many times the thing's longer side, of no fewer pixels than the
// model was trained to see enlarged …
constexpr double kMargin = 1.6;
constexpr int kLeastWindow = 40;
// … and is worth reading where it shows the thing so much larger than before.
constexpr double kGain = 1.2;
constexpr size_t kKeptViews = 8;

// Edges are drawn by what the model sees, in which a value of a mask is two pixels wide.
constexpr int kPixels = 2;
constexpr int kEdgeRadius = 4;
constexpr float kEdgeColor = 1e-3f;  // squared: colours that count as one

constexpr int64_t kBatch = 16;  // prompts of a grid that are answered together
constexpr float kStableLogit = 1;

float iou(const std::vector<float>& a, float a_above, const std::vector<float>& b, float b_above) {
    int64_t both = 0, either = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        const bool in_a = a[i] > a_above, in_b = b[i] > b_above;
        both += in_a && in_b;
        either += in_a || in_b;
    }
    return either > 0 ? static_cast<float>(both) / static_cast<float>(either) : 1;
}

// Window of a ladder of sizes and places, so that a second prompt about a thing meets the first
// one's.
std::pair<int, int> side_around(int begin, int end, int window, int length) {
    if (window >= length) return {0, length};
    const int step = std::max(1, window / 16);
    const int first = (begin + end - window) / 2 / step * step;
    const int clamped = std::clamp(first, 0, length - window);
    return {clamped, clamped + window};
}

int ladder(double least) {
    double size = kLeastWindow;
    while (size < least) size *= std::sqrt(std::sqrt(2.0));
    return static_cast<int>(std::lround(size));
}

void add_corners(SegmentPrompts& prompts, const SegmentView& view,
                 const SegmentPrompt::Corners& box) {
    prompts.points.push_back(view.place(box.left, box.top, SegmentPoint::corner_first));
    prompts.points.push_back(view.place(box.right, box.bottom, SegmentPoint::corner_last));
}

bool is_within(const SegmentPrompt::Corners& box, const Box& window) {
    return box.left >= static_cast<float>(window.left) &&
           box.top >= static_cast<float>(window.top) &&
           box.right <= static_cast<float>(window.right) &&
           box.bottom <= static_cast<float>(window.bottom);
}

bool is_search(const SegmentPrompt& prompt) {
    return prompt.search && !prompt.words.empty() && prompt.points.empty() && !prompt.box &&
           !prompt.earlier;
}

int longest(const Box& box) {
    return std::max(box.width(), box.height());
}

/// Around the points on the thing, and the box if there is one.
std::optional<SegmentPrompt::Corners> points_on(const SegmentPrompt& prompt,
                                                std::optional<SegmentPrompt::Corners> box = {}) {
    for (const auto& point : prompt.points)
        if (point.positive) {
            if (!box) box = {point.x, point.y, point.x, point.y};
            box = {std::min(box->left, point.x), std::min(box->top, point.y),
                   std::max(box->right, point.x), std::max(box->bottom, point.y)};
        }
    return box;
}

/// The surest first, by score_of(thing), without those that show what a surer one does.
template <typename T>
std::vector<T> distinct(std::vector<T> things, auto score_of, auto show_the_same) {
    std::stable_sort(things.begin(), things.end(),
                     [&](const T& a, const T& b) { return score_of(a) > score_of(b); });
    std::vector<T> kept;
    for (auto& thing : things)
        if (std::none_of(kept.begin(), kept.end(),
                         [&](const T& other) { return show_the_same(thing, other); }))
            kept.push_back(std::move(thing));
    return kept;
}

/// Whether the decoder is asked for what a single point means, which may be several things.
bool is_one_point(const SegmentPrompts& prompts) {
    return prompts.points.size() == 1 && !prompts.text && !prompts.earlier;
}

}  // namespace

SegmentModel SegmentModel::load(vk::Stream& stream, const std::filesystem::path& folder,
                                DType dtype) {
    const auto open = [&](const char* name) { return Weights::open(folder / name); };
    SegmentModel model{.tokenizer = Tokenizer::open(folder / "vocabulary.txt"),
                       .text = TextEncoder(stream, open("text.safetensors"), dtype),
                       .segmenter = Segmenter(stream, open("segment.safetensors"), dtype),
                       .hash = hash_files(folder, kFiles),
                       .dtype = dtype};
    const auto& text = model.text.config();
    const auto& segment = model.segmenter.config();
    require(text.width == segment.text_width,
            "[model] {}: segmentation expects text of width {}, the text encoder gives {}",
            folder.string(), segment.text_width, text.width);
    stream.submit();
    log::info("segmentation model {} ({})", folder.string(), model.hash);
    return model;
}

Mask Segment::mask() const {
    Mask mask{.width = width, .height = height, .hole = {}};
    mask.hole.reserve(opacity.size());
    for (const float value : opacity) mask.hole.push_back(value >= 0.5f);
    return mask;
}

bool Segment::shows() const {
    return std::any_of(opacity.begin(), opacity.end(), [](float value) { return value >= 0.5f; });
}

SegmentPrompt::Corners corners_of(const Box& box) {
    return {.left = static_cast<float>(box.left),
            .top = static_cast<float>(box.top),
            .right = static_cast<float>(box.right),
            .bottom = static_cast<float>(box.bottom)};
}

void validate(const SegmentPrompt& prompt, int width, int height) {
    require(!prompt.empty(),
            "[segment] nothing asked: give a point on the thing, a box around it, or words");
    require(points_on(prompt) || prompt.box || !prompt.words.empty() || prompt.earlier,
            "[segment] only points beside the thing: give one on it, a box or words as well");
    for (const auto& point : prompt.points)
        require(point.x >= 0 && point.x < static_cast<float>(width) && point.y >= 0 &&
                    point.y < static_cast<float>(height),
                "[segment] point {:.0f},{:.0f} lies outside the picture of {}×{}",
                std::floor(point.x), std::floor(point.y), width, height);
    if (!prompt.box) return;
    const auto& box = *prompt.box;
    require(box.left < box.right && box.top < box.bottom,
            "[segment] box {},{},{},{} is empty, expected LEFT,TOP,RIGHT,BOTTOM with right beyond "
            "left and bottom beyond top",
            box.left, box.top, box.right, box.bottom);
    require(box.left >= 0 && box.top >= 0 && box.right <= static_cast<float>(width) &&
                box.bottom <= static_cast<float>(height),
            "[segment] box {},{},{},{} reaches out of the picture of {}×{}", box.left, box.top,
            box.right, box.bottom, width, height);
}

Tokenizer::Result known_words(const Tokenizer& tokenizer, const std::string& words, int length) {
    auto tokens = tokenizer.encode(words, length);
    if (!tokens.unknown.empty()) {
        const auto& unknown = tokens.unknown[0];
        std::string close;
        for (const auto& word : unknown.suggestions) close += (close.empty() ? "" : ", ") + word;
        fail("[segment] the model does not know the word \"{}\"{}", unknown.word,
             close.empty() ? ": point at the thing, or draw a box around it"
                           : "; close to it: " + close);
    }
    require(!tokens.words.empty(), "[segment] \"{}\" holds no word", words);
    return tokens;
}

Tensor encode_words(vk::Stream& stream, const SegmentModel& model, const std::string& words) {
    const auto& config = model.text.config();
    const auto tokens = known_words(model.tokenizer, words, static_cast<int>(config.length));
    const auto states = to_host(stream, model.text.forward(stream, tokens.ids));
    const auto width = static_cast<size_t>(config.width);
    std::vector<float> mean(width);
    for (size_t word = 0; word < tokens.words.size(); ++word)
        for (size_t i = 0; i < width; ++i)
            mean[i] += states[word * width + i] / static_cast<float>(tokens.words.size());
    return upload(stream, mean, {1, config.width}, model.dtype);
}

SegmentedPicture::SegmentedPicture(vk::Stream& stream, const SegmentModel& model, Image picture)
    : stream_(stream), model_(model), picture_(std::move(picture)) {}

const SegmentView& SegmentedPicture::whole() {
    if (!whole_)
        whole_.emplace(stream_, model_.segmenter, picture_,
                       Box{0, 0, picture_.width, picture_.height}, model_.dtype);
    return *whole_;
}

Box SegmentedPicture::window_around(const SegmentPrompt::Corners& box, int least) const {
    const Box around{.left = static_cast<int>(std::floor(box.left)),
                     .top = static_cast<int>(std::floor(box.top)),
                     .right = static_cast<int>(std::ceil(box.right)),
                     .bottom = static_cast<int>(std::ceil(box.bottom))};
    const int side = std::max(least, ladder(kMargin * longest(around)));
    const auto [left, right] = side_around(around.left, around.right, side, picture_.width);
    const auto [top, bottom] = side_around(around.top, around.bottom, side, picture_.height);
    return {left, top, right, bottom};
}

Box SegmentedPicture::window_of(const SegmentPrompt::Corners& box,
                                const SegmentPrompt& prompt) const {
    const Box window = window_around(box);
    const auto reached = *points_on(prompt, box);
    return is_within(reached, window) ? window : window_around(reached);
}

std::shared_ptr<const SegmentView> SegmentedPicture::near(const Box& window) {
    const auto found = std::find_if(near_.begin(), near_.end(),
                                    [&](const auto& view) { return view->window == window; });
    auto view = found != near_.end()
                    ? *found
                    : std::make_shared<SegmentView>(stream_, model_.segmenter, picture_, window,
                                                    model_.dtype);
    if (found != near_.end()) near_.erase(found);
    near_.push_back(view);
    if (near_.size() > kKeptViews) near_.erase(near_.begin());
    return view;
}

SegmentPrompts SegmentedPicture::prompts_about(
    const SegmentView& view, const SegmentPrompt& prompt,
    const std::optional<SegmentPrompt::Corners>& box) const {
    SegmentPrompts prompts;
    if (!prompt.words.empty()) prompts.text = encode_words(stream_, model_, prompt.words);
    for (const auto& point : prompt.points) {
        const auto kind = point.positive ? SegmentPoint::positive : SegmentPoint::negative;
        const SegmentPoint place = view.place(point.x, point.y, kind);
        if (place.x >= 0 && place.x <= 1 && place.y >= 0 && place.y <= 1)
            prompts.points.push_back(place);
    }
    if (box && is_within(*box, view.window)) add_corners(prompts, view, *box);
    return prompts;
}

Segment SegmentedPicture::draw(const SegmentAnswer& answer, bool edges) const {
    const auto width = static_cast<size_t>(picture_.width);
    Segment result{.width = picture_.width,
                   .height = picture_.height,
                   .opacity = std::vector<float>(picture_.rgb.size() / 3),
                   .score = answer.score,
                   .first = {},
                   .last = answer};
    const Box& window = answer.window;
    // A window that was enlarged shows its edges in the mask already.
    std::vector<float> drawn;
    const int width_seen = kPixels * answer.columns, height_seen = kPixels * answer.rows;
    if (edges && longest(window) > std::max(width_seen, height_seen)) {
        const Image part = crop(picture_, window);
        drawn = GuidedMap(resize(part, width_seen, height_seen),
                          answer.probabilities(width_seen, height_seen), kEdgeRadius, kEdgeColor)
                    .draw(part);
    } else {
        drawn = answer.probabilities(window.width(), window.height());
    }
    for (int y = 0; y < window.height(); ++y)
        for (int x = 0; x < window.width(); ++x)
            result.opacity[static_cast<size_t>(y + window.top) * width +
                           static_cast<size_t>(x + window.left)] =
                std::clamp(drawn[static_cast<size_t>(y) * static_cast<size_t>(window.width()) +
                                 static_cast<size_t>(x)],
                           0.0f, 1.0f);
    return result;
}

Segment SegmentedPicture::refine(const SegmentAnswer& first, const SegmentPrompt& prompt,
                                 const SegmentDrawing& drawing) {
    Segment result;
    if (is_search(prompt)) {
        result = draw(first, drawing.edges);
        result.first = first;
        if (drawing.closer) refine_parts(result, prompt, drawing.edges);
        return result;
    }
    const auto box = prompt.box ? *prompt.box : corners_of(*first.box());
    const Box window = window_of(box, prompt);
    if (drawing.closer && longest(first.window) >= kGain * longest(window)) {
        const auto view = near(window);
        auto prompts = prompts_about(*view, prompt, box);
        // What is not seen from nearby is known through the answer that used it.
        if (prompt.earlier || prompts.points.size() < prompt.points.size() + 2)
            prompts.earlier = earlier(first, *view);
        const auto closer = answers(stream_, model_.segmenter, *view, prompts, false).front();
        if (closer.shows()) result = draw(closer, drawing.edges);
    }
    if (!result.shows()) result = draw(first, drawing.edges);
    result.first = first;
    return result;
}

void SegmentedPicture::refine_parts(Segment& segment, const SegmentPrompt& prompt, bool edges) {
    const HoleParts parts = parts_of(segment.mask());
    std::vector<size_t> order(parts.boxes.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return longest(parts.boxes[a]) > longest(parts.boxes[b]);
    });
    order.resize(std::min(order.size(), kKeptViews));
    // The window that shows things as large as the answer does.
    const SegmentAnswer& answer = segment.first;
    const double seen = static_cast<double>(longest(answer.window)) *
                        static_cast<double>(whole().features.rows * 4) / answer.rows;
    for (const size_t part : order) {
        const auto box = corners_of(parts.boxes[part]);
        const Box window = window_around(box);
        if (seen < kGain * longest(window)) continue;
        const auto view = near(window);
        const auto prompts = prompts_about(*view, prompt, box);
        const auto closer = answers(stream_, model_.segmenter, *view, prompts, false).front();
        if (!closer.shows()) continue;
        const Segment drawn = draw(closer, edges);
        for (size_t i = 0; i < drawn.opacity.size(); ++i) {
            if (parts.part[i] == static_cast<int32_t>(part)) segment.opacity[i] = 0;
            segment.opacity[i] = std::max(segment.opacity[i], drawn.opacity[i]);
        }
    }
}

SegmentAnswer SegmentedPicture::search(const SegmentPrompt& prompt) {
    const SegmentPrompts prompts{.text = encode_words(stream_, model_, prompt.words)};
    const auto about = [&](const SegmentView& view) {
        return answers(stream_, model_.segmenter, view, prompts, false).front();
    };
    if (tiles_.empty())
        for (const Box& tile :
             tiles_of(picture_.width, picture_.height, model_.segmenter.config().size))
            tiles_.emplace_back(stream_, model_.segmenter, picture_, tile, model_.dtype);
    const SegmentAnswer first = about(whole());
    if (tiles_.empty()) return first;
    std::vector<SegmentAnswer> found;
    for (const auto& tile : tiles_) found.push_back(about(tile));
    return merge(first, found);
}

std::optional<Segment> SegmentedPicture::correct(const SegmentPrompt& prompt) {
    const SegmentAnswer& answer = *prompt.earlier;
    const auto view = near(answer.window);
    auto prompts = prompts_about(*view, prompt, prompt.box);
    const size_t asked = prompt.points.size() + (prompt.box ? 2 : 0);
    if (prompts.points.size() < asked) return std::nullopt;
    prompts.earlier = earlier(answer, *view);
    const auto better = answers(stream_, model_.segmenter, *view, prompts, false).front();
    if (!better.shows()) return std::nullopt;
    Segment result = draw(better, true);
    if (!result.shows()) return std::nullopt;
    result.first = better;
    return result;
}

std::optional<Segment> SegmentedPicture::ask_nearby(const SegmentPrompt& prompt) {
    const Box window = prompt.box ? window_of(*prompt.box, prompt)
                                  : window_around(*points_on(prompt),
                                                  static_cast<int>(model_.segmenter.config().size));
    if (longest(whole().window) < kGain * longest(window)) return std::nullopt;
    const auto view = near(window);
    auto prompts = prompts_about(*view, prompt, prompt.box);
    if (prompt.earlier) prompts.earlier = earlier(*prompt.earlier, *view);
    const auto answer =
        answers(stream_, model_.segmenter, *view, prompts, is_one_point(prompts)).front();
    if (!answer.shows()) return std::nullopt;
    return refine(answer, prompt);
}

Tensor SegmentedPicture::earlier(const SegmentAnswer& answer, const SegmentView& view) {
    return upload(stream_, answer.logits_in(view),
                  {1, 4 * view.features.rows, 4 * view.features.columns}, model_.dtype);
}

SegmentAnswer SegmentedPicture::ask_again(const SegmentAnswer& first,
                                          const SegmentPrompt::Point& point) {
    SegmentPrompts prompts{.points = {whole().place(point.x, point.y, SegmentPoint::positive)}};
    add_corners(prompts, whole(), corners_of(*first.box()));
    prompts.earlier = earlier(first, whole());
    auto answer = answers(stream_, model_.segmenter, whole(), prompts, false).front();
    return answer.shows() ? answer : first;
}

std::optional<Segment> SegmentedPicture::ask(const SegmentPrompt& prompt) {
    validate(prompt, picture_.width, picture_.height);
    auto found = answer(prompt);
    return found && found->shows() ? std::move(found) : std::nullopt;
}

std::optional<Segment> SegmentedPicture::answer(const SegmentPrompt& prompt) {
    if (prompt.earlier && prompt.earlier->window != Box{0, 0, picture_.width, picture_.height})
        if (auto better = correct(prompt)) return better;
    if (is_search(prompt)) {
        const SegmentAnswer answer = search(prompt);
        return answer.shows() ? std::optional(refine(answer, prompt)) : std::nullopt;
    }
    const SegmentView& view = whole();
    auto prompts = prompts_about(view, prompt, prompt.box);
    if (prompt.earlier) prompts.earlier = earlier(*prompt.earlier, view);
    const bool one_point = is_one_point(prompts);
    const auto answer = answers(stream_, model_.segmenter, view, prompts, one_point).front();
    if (answer.shows())
        return refine(one_point ? ask_again(answer, prompt.points[0]) : answer, prompt);
    return prompt.box || points_on(prompt) ? ask_nearby(prompt) : std::nullopt;
}

std::vector<Segment> SegmentedPicture::everything(const SegmentEverything& options) {
    const SegmentView& view = whole();
    std::vector<SegmentPrompt::Point> grid;
    for (int y = 0; y < options.grid; ++y)
        for (int x = 0; x < options.grid; ++x)
            grid.push_back(
                {.x = (static_cast<float>(x) + 0.5f) * static_cast<float>(picture_.width) /
                      static_cast<float>(options.grid),
                 .y = (static_cast<float>(y) + 0.5f) * static_cast<float>(picture_.height) /
                      static_cast<float>(options.grid)});
    struct Candidate {
        SegmentAnswer answer;
        SegmentPrompt::Point point;
    };
    std::vector<Candidate> candidates;
    const auto count = static_cast<int>(grid.size());
    const auto step = [&](int done, int total) {
        if (options.cancel != nullptr && *options.cancel) throw Cancelled();
        if (options.on_step) options.on_step(done, total);
    };
    for (size_t begin = 0; begin < grid.size(); begin += kBatch) {
        step(static_cast<int>(begin), count);
        SegmentPrompts prompts{
            .count = std::min(kBatch, std::ssize(grid) - static_cast<int64_t>(begin))};
        for (size_t i = begin; i < begin + static_cast<size_t>(prompts.count); ++i)
            prompts.points.push_back(view.place(grid[i].x, grid[i].y, SegmentPoint::positive));
        auto found = answers(stream_, model_.segmenter, view, prompts, true);
        for (size_t i = 0; i < found.size(); ++i)
            if (found[i].shows() && found[i].score > options.score &&
                iou(found[i].logits, kStableLogit, found[i].logits, -kStableLogit) >=
                    options.stability)
                candidates.push_back({std::move(found[i]), grid[begin + i]});
    }
    const auto kept = distinct(
        std::move(candidates), [](const Candidate& each) { return each.answer.score; },
        [&](const Candidate& a, const Candidate& b) {
            return iou(a.answer.logits, 0, b.answer.logits, 0) >= options.same;
        });
    std::vector<Segment> segments;
    const int total = count + static_cast<int>(kept.size());
    for (size_t i = 0; i < kept.size(); ++i) {
        step(count + static_cast<int>(i), total);
        const auto& [answer, point] = kept[i];
        auto segment = refine(ask_again(answer, point), {.points = {point}});
        if (segment.shows()) segments.push_back(std::move(segment));
    }
    step(total, total);
    // A second look changes scores and masks.
    return distinct(
        std::move(segments), [](const Segment& each) { return each.score; },
        [&](const Segment& a, const Segment& b) {
            return iou(a.opacity, 0.5f, b.opacity, 0.5f) >= options.same;
        });
}

}  // namespace fovea
