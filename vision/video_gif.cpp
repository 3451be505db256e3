#include <algorithm>
#include <cstring>

#include "backend/error.h"
#include "vision/libav.h"
#include "vision/palette.h"
#include "vision/video_codecs.h"

/// GIF89a (https://www.w3.org/Graphics/GIF/spec-gif89a.txt) by libavcodec's encoder, which writes
/// what changes from frame to frame; the comment is put in here.
namespace fovea {
namespace {

constexpr size_t kMost = 255;  // a palette of 256 has no place for "as before"
constexpr size_t kHeader = 13;
constexpr uint8_t kExtension = 0x21, kComment = 0xfe;
constexpr size_t kSubBlock = 255;

uint8_t byte(std::span<const std::byte> gif, size_t at) {
    return at < gif.size() ? std::to_integer<uint8_t>(gif[at]) : 0;
}

// Behind the header and the palette of all frames.
size_t blocks_begin(std::span<const std::byte> gif) {
    const uint8_t flags = byte(gif, 10);
    return kHeader + ((flags & 0x80) != 0 ? size_t{3} << ((flags & 7) + 1) : 0);
}

std::vector<std::byte> with_comment(std::vector<std::byte> gif, const std::string& text) {
    std::vector<std::byte> block{std::byte{kExtension}, std::byte{kComment}};
    for (size_t i = 0; i < text.size(); i += kSubBlock) {
        const size_t count = std::min(kSubBlock, text.size() - i);
        block.push_back(static_cast<std::byte>(count));
        const auto* letters = reinterpret_cast<const std::byte*>(text.data()) + i;
        block.insert(block.end(), letters, letters + count);
    }
    block.push_back(std::byte{0});
    gif.insert(gif.begin() + static_cast<std::ptrdiff_t>(blocks_begin(gif)), block.begin(),
               block.end());
    return gif;
}

}  // namespace

std::vector<std::byte> encode_gif(const Clip& clip) {
    const int width = clip.frames[0].width, height = clip.frames[0].height;
    std::vector<std::vector<uint8_t>> frames;
    std::vector<uint8_t> all;
    for (const Image& frame : clip.frames) {
        frames.push_back(rgb_bytes(frame));
        all.insert(all.end(), frames.back().begin(), frames.back().end());
    }
    const Palette palette(all, kMost);
    std::array<uint32_t, 256> entries;
    entries.fill(0);  // what is left: transparent
    for (size_t i = 0; i < palette.colors().size(); ++i) {
        const Color& color = palette.colors()[i];
        entries[i] = 0xff000000u | uint32_t{color[0]} << 16 | uint32_t{color[1]} << 8 | color[2];
    }
    libav::Writer writer({.container = "gif",
                          .format = AV_PIX_FMT_PAL8,
                          .width = width,
                          .height = height,
                          .fps = clip.fps,
                          .comment = {}},
                         {{"gif", {}}});
    for (const auto& rgb : frames) {
        const auto frame = libav::make_frame(AV_PIX_FMT_PAL8, width, height);
        const auto indices = palette.indices(rgb, width);
        for (int y = 0; y < height; ++y)
            std::copy_n(&indices[static_cast<size_t>(y) * static_cast<size_t>(width)], width,
                        frame->data[0] + static_cast<ptrdiff_t>(y) * frame->linesize[0]);
        std::memcpy(frame->data[1], entries.data(), sizeof entries);
        writer.add(*frame);
    }
    auto gif = writer.finish();
    return clip.text.empty() ? gif : with_comment(std::move(gif), clip.text);
}

std::string gif_comment(std::span<const std::byte> gif) {
    std::string text;
    for (size_t at = blocks_begin(gif); byte(gif, at) == kExtension;) {
        const bool comment = byte(gif, at + 1) == kComment;
        at += 2;
        while (const size_t count = byte(gif, at)) {
            if (at + 1 + count > gif.size()) return text;
            if (comment) text.append(reinterpret_cast<const char*>(gif.data()) + at + 1, count);
            at += 1 + count;
        }
        if (comment) return text;
        ++at;
    }
    return text;
}

}  // namespace fovea
