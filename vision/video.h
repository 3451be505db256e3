#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "vision/image.h"

/// Clips on disk: MP4, animated WebP, GIF and PNG frames, told apart by their names when written
/// and by their bytes when read. A text travels in each: MP4's comment, WebP's XMP description,
/// GIF's comment, PNG's tEXt `fovea`.
namespace fovea {

struct Clip {
    std::vector<Image> frames;  ///< of one size
    double fps = 8;
    std::string text;  ///< empty: none
};

/// Limits on what is read or written.
inline constexpr int kMaxClipFrames = 4096;
inline constexpr size_t kMaxClipPixels = size_t{1} << 27;

enum class VideoFormat { mp4, webp, gif, frames };

/// By name: .mp4, .webp, .gif; frames where the name ends with '/', is a folder's or has one %d (or
/// %04d …) before .png. Throws Error that lists these.
VideoFormat video_format(const std::filesystem::path& path);

/// Throws Error unless a clip of such sides can be written by this name, of which MP4 needs even
/// ones: to be known before long work.
void require_sides(const std::filesystem::path& path, int width, int height);

/// Writes a clip in the format of its name. → how it is encoded: "H.264", "GIF of 255 colours" …
/// Every file appears whole or not at all (write_file); a folder is made
/// where there is none, gets frame-0001.png and on, and loses higher numbers of an earlier, longer
/// clip. The same clip gives the same bytes on one machine. Throws Error.
std::string save_video(const std::filesystem::path& path, const Clip& clip);

/// Whether something may move: a folder or pattern of frames, a file of other bytes than those of a
/// still picture, of which load_image() reads PNG and JPEG. Throws Error where there is nothing to
/// read.
bool is_clip(const std::filesystem::path& path);

/// Reads one back; a folder or pattern as save_video() writes it (without fps: 8), numbered from 1
/// without a gap. Other videos that libavformat knows are read, too. Throws Error.
Clip load_video(const std::filesystem::path& path);

}  // namespace fovea
