#include "vision/video.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <optional>
#include <regex>

#include "backend/error.h"
#include "vision/file.h"
#include "vision/video_codecs.h"

namespace fovea {

namespace fs = std::filesystem;

namespace {

constexpr size_t kMaxFileBytes = size_t{1} << 29;
constexpr const char* kTextKey = "fovea";
constexpr const char* kRateKey = "fps";

const std::regex kNumbered("([^%]*)%0?([0-9]?)d([^%]*\\.png)");

bool is_pattern(const fs::path& path) {
    return std::regex_match(path.filename().string(), kNumbered);
}

/// Names of frames: of a folder or a pattern with one %d.
struct FrameNames {
    fs::path folder;
    std::string before, after;
    int digits;

    explicit FrameNames(const fs::path& path) {
        const std::string name = path.filename().string();
        std::smatch match;
        if (std::regex_match(name, match, kNumbered)) {
            folder = path.parent_path();
            before = match[1];
            digits = match[2].length() == 0 ? 1 : std::stoi(match[2]);
            after = match[3];
        } else {
            folder = path;
            before = "frame-";
            digits = 4;
            after = ".png";
        }
    }
    fs::path at(size_t i) const {
        return folder / fmt::format("{}{:0{}}{}", before, i + 1, digits, after);
    }
    /// A name of a number that is not among the first `count`; empty: there is none.
    std::string beyond(size_t count) const {
        std::error_code error;
        for (const auto& entry :
             fs::directory_iterator(folder.empty() ? fs::path(".") : folder, error)) {
            const std::string name = entry.path().filename().string();
            if (name.size() <= before.size() + after.size() || !name.starts_with(before) ||
                !name.ends_with(after))
                continue;
            const char* const begin = name.data() + before.size();
            const char* const end = name.data() + name.size() - after.size();
            size_t number = 0;
            const auto [last, code] = std::from_chars(begin, end, number);
            if (last == end && (code != std::errc() || number < 1 || number > count)) return name;
        }
        return {};
    }
};

void save_frames(const fs::path& path, const Clip& clip) {
    const FrameNames names(path);
    std::error_code error;
    if (!names.folder.empty()) fs::create_directories(names.folder, error);
    require(names.folder.empty() || fs::is_directory(names.folder, error),
            "[video] the folder {} cannot be made: {}", names.folder.string(), error.message());
    PngText text{{kRateKey, fmt::format("{}", clip.fps)}};
    if (!clip.text.empty()) text[kTextKey] = clip.text;
    for (size_t i = 0; i < clip.frames.size(); ++i) save_png(names.at(i), clip.frames[i], text);
    for (size_t i = clip.frames.size(); fs::remove(names.at(i), error); ++i) {
    }
}

Clip load_frames(const fs::path& path) {
    const FrameNames names(path);
    Clip clip;
    std::error_code error;
    for (size_t i = 0; fs::exists(names.at(i), error); ++i) {
        clip.frames.push_back(load_image(names.at(i)));
        const Image &first = clip.frames[0], &last = clip.frames.back();
        require(last.width == first.width && last.height == first.height,
                "[video] {} is {}x{}, the frames before are {}x{}", names.at(i).string(),
                last.width, last.height, first.width, first.height);
        require_room(path.string(), i + 1, first.width, first.height);
    }
    const size_t count = clip.frames.size();
    const std::string beyond = names.beyond(count);
    require(count == 0 || beyond.empty(),
            "[video] {} found beside frames 1 to {}, expected numbers from 1 without a gap",
            (names.folder / beyond).string(), count);
    require(count > 0, "[video] no frames found: {} is missing", names.at(0).string());
    const PngText text = read_png_text(names.at(0));
    if (const auto found = text.find(kTextKey); found != text.end()) clip.text = found->second;
    if (const auto found = text.find(kRateKey); found != text.end()) {
        const std::string& rate = found->second;
        double fps = 0;
        const auto [end, code] = std::from_chars(rate.data(), rate.data() + rate.size(), fps);
        if (code == std::errc() && fps > 0 && fps <= 1000) clip.fps = fps;
    }
    return clip;
}

void check(const Clip& clip) {
    require(!clip.frames.empty() && clip.fps > 0 && clip.fps <= 1000,
            "[video] a clip of at least one frame and 0 to 1000 frames a second expected, found {} "
            "and {}",
            clip.frames.size(), clip.fps);
    const Image& first = clip.frames[0];
    for (const Image& frame : clip.frames)
        require(frame.width == first.width && frame.height == first.height &&
                    frame.rgb.size() ==
                        3 * static_cast<size_t>(frame.width) * static_cast<size_t>(frame.height),
                "[video] frames of {}x{} expected, found {}x{}", first.width, first.height,
                frame.width, frame.height);
    require_room("the clip", clip.frames.size(), first.width, first.height);
}

}  // namespace

void require_room(const std::string& name, size_t frames, int width, int height) {
    const size_t pixels = static_cast<size_t>(width) * static_cast<size_t>(height);
    require(width >= 1 && height >= 1 && width <= kMaxImageSide && height <= kMaxImageSide &&
                frames <= kMaxClipFrames && pixels <= kMaxClipPixels / std::max<size_t>(frames, 1),
            "[video] at most {} frames and {} pixels in all expected, found {} to have {} or more "
            "of {}x{}",
            kMaxClipFrames, kMaxClipPixels, name, frames, width, height);
}

std::vector<uint8_t> rgb_bytes(const Image& image) {
    std::vector<uint8_t> bytes(image.rgb.size());
    std::transform(image.rgb.begin(), image.rgb.end(), bytes.begin(), [](float value) {
        const float clamped = value > 0 ? std::min(value, 1.0f) : 0.0f;  // NaN too
        return static_cast<uint8_t>(clamped * 255.0f + 0.5f);
    });
    return bytes;
}

Image image_of(const uint8_t* rgb, int width, int height, size_t stride) {
    Image image{.width = width, .height = height, .rgb = {}};
    const size_t row = 3 * static_cast<size_t>(width);
    image.rgb.reserve(row * static_cast<size_t>(height));
    for (int y = 0; y < height; ++y, rgb += stride)
        for (size_t i = 0; i < row; ++i) image.rgb.push_back(static_cast<float>(rgb[i]) / 255.0f);
    return image;
}

VideoFormat video_format(const fs::path& path) {
    std::string extension = path.extension().string();
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char letter) { return static_cast<char>(std::tolower(letter)); });
    std::error_code error;
    if (!path.has_filename() || fs::is_directory(path, error) || is_pattern(path))
        return VideoFormat::frames;
    if (extension == ".mp4") return VideoFormat::mp4;
    if (extension == ".webp") return VideoFormat::webp;
    if (extension == ".gif") return VideoFormat::gif;
    fail(
        "[video] {} found, expected a name with .mp4, .webp or .gif, a folder (with a / at its "
        "end), or a pattern such as frame-%04d.png",
        path.string());
}

void require_sides(const fs::path& path, int width, int height) {
    require(video_format(path) != VideoFormat::mp4 || (width % 2 == 0 && height % 2 == 0),
            "[video] {} found, but MP4 needs even sides, these are {}x{}: write .webp or .gif",
            path.string(), width, height);
}

std::string save_video(const fs::path& path, const Clip& clip) {
    check(clip);
    require_sides(path, clip.frames[0].width, clip.frames[0].height);
    std::string encoded_as;
    switch (video_format(path)) {
        case VideoFormat::mp4:
            write_file(path, encode_mp4(clip, encoded_as));
            return encoded_as;
        case VideoFormat::webp:
            write_file(path, encode_webp(clip));
            return "animated WebP";
        case VideoFormat::gif:
            write_file(path, encode_gif(clip));
            return "GIF of 255 colours";
        case VideoFormat::frames:
            break;
    }
    save_frames(path, clip);
    return "PNG frames";
}

bool is_clip(const fs::path& path) {
    std::error_code error;
    if (fs::is_directory(path, error) || is_pattern(path)) return true;
    std::array<char, 16> start{};
    std::ifstream file(path, std::ios::binary);
    file.read(start.data(), start.size());
    require(file.gcount() > 0, "[video] {} is missing or empty, expected a picture or a clip",
            path.string());
    const auto bytes = std::as_bytes(std::span(start)).first(static_cast<size_t>(file.gcount()));
    const std::string kind = file_kind(bytes);
    return !kind.ends_with(" picture") || kind == "a GIF picture" || kind == "a WebP picture" ||
           kind == "an AVIF picture";
}

Clip load_video(const fs::path& path) {
    std::error_code error;
    if (fs::is_directory(path, error) || is_pattern(path)) return load_frames(path);
    const auto bytes = read_file(path, kMaxFileBytes);
    const std::string kind = file_kind(bytes), name = path.string();
    if (kind == "a WebP picture") return decode_webp(bytes, name);
    Clip clip = decode_libav(bytes, name);
    if (kind == "a GIF picture") clip.text = gif_comment(bytes);
    if (kind == "a PNG picture") clip.text = parse_png_text(bytes, name)[kTextKey];  // of a frame
    return clip;
}

}  // namespace fovea
