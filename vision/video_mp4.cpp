#include <cstring>

#include "backend/error.h"
#include "vision/libav.h"
#include "vision/video_codecs.h"

/// MP4 by libavformat; reading of whatever it knows.
namespace fovea {
namespace {

using libav::check;
using libav::Owner;

Owner<SwsContext> converter(int width, int height, AVPixelFormat from, AVPixelFormat to) {
    Owner<SwsContext> context(sws_getContext(
        width, height, from, width, height, to,
        SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_FULL_CHR_H_INP | SWS_BITEXACT,
        nullptr, nullptr, nullptr));
    require(context != nullptr, "[video] libswscale has no way between these pixel formats");
    return context;
}

void set_colors(SwsContext* context, int from_space, bool from_full, int to_space, bool to_full) {
    sws_setColorspaceDetails(context, sws_getCoefficients(from_space), from_full,
                             sws_getCoefficients(to_space), to_full, 0, 1 << 16, 1 << 16);
}

std::string encoder_text(const std::string& name) {
    if (name == "libx264" || name == "libopenh264") return fmt::format("H.264 ({})", name);
    if (name == "libvpx-vp9") return "VP9 (libvpx-vp9), as there is no H.264 encoder";
    return fmt::format("MPEG-4 part 2 ({}), as there is no H.264 encoder", name);
}

/// A file in memory for libavformat to read.
struct Source {
    std::span<const std::byte> bytes;
    size_t at = 0;

    static int read(void* self, uint8_t* to, int size) {
        auto& source = *static_cast<Source*>(self);
        const size_t count = std::min(static_cast<size_t>(size), source.bytes.size() - source.at);
        if (count == 0) return AVERROR_EOF;
        std::memcpy(to, source.bytes.data() + source.at, count);
        source.at += count;
        return static_cast<int>(count);
    }
    static int64_t seek(void* self, int64_t offset, int whence) {
        auto& source = *static_cast<Source*>(self);
        const auto size = static_cast<int64_t>(source.bytes.size());
        if (whence == AVSEEK_SIZE) return size;
        const int64_t base = whence == SEEK_CUR   ? static_cast<int64_t>(source.at)
                             : whence == SEEK_END ? size
                                                  : 0;
        if (base + offset < 0 || base + offset > size) return AVERROR(EINVAL);
        source.at = static_cast<size_t>(base + offset);
        return base + offset;
    }
};

class Reader {
  public:
    Reader(std::span<const std::byte> bytes, const std::string& name) : source_{bytes} {
        libav::set_quiet();
        constexpr int kBuffer = 1 << 16;
        io_.reset(avio_alloc_context(static_cast<unsigned char*>(av_malloc(kBuffer)), kBuffer, 0,
                                     &source_, Source::read, nullptr, Source::seek));
        AVFormatContext* container = avformat_alloc_context();
        require(io_ && container, "[video] out of memory");
        container->pb = io_.get();
        const std::string unknown =
            name + " is neither a PNG or JPEG picture nor a video that libavformat knows";
        const int opened = avformat_open_input(&container, nullptr, nullptr, nullptr);
        container_.reset(container);  // nothing where it could not be opened
        check(opened, unknown.c_str());
        check(avformat_find_stream_info(container, nullptr), unknown.c_str());
        const AVCodec* codec = nullptr;
        index_ = check(av_find_best_stream(container, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0),
                       (name + " has no video that can be decoded here").c_str());
        decoder_.reset(avcodec_alloc_context3(codec));
        require(decoder_ != nullptr, "[video] out of memory");
        check(avcodec_parameters_to_context(decoder_.get(), stream().codecpar), name.c_str());
        check(avcodec_open2(decoder_.get(), codec, nullptr), name.c_str());
    }

    AVStream& stream() const { return *container_->streams[index_]; }
    double fps() const {
        const AVRational rate = av_guess_frame_rate(container_.get(), &stream(), nullptr);
        return rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 8;
    }
    std::string comment() const {
        const auto* entry = av_dict_get(container_->metadata, "comment", nullptr, 0);
        return entry ? entry->value : "";
    }
    /// Every frame in order.
    template <typename Use>
    void frames(const Use& use) {
        const Owner<AVPacket> packet(av_packet_alloc());
        const Owner<AVFrame> frame(av_frame_alloc());
        const auto receive = [&] {
            while (avcodec_receive_frame(decoder_.get(), frame.get()) >= 0) use(*frame);
        };
        while (av_read_frame(container_.get(), packet.get()) >= 0) {
            if (packet->stream_index == index_)
                avcodec_send_packet(decoder_.get(), packet.get());  // damaged ones are left out
            av_packet_unref(packet.get());
            receive();
        }
        avcodec_send_packet(decoder_.get(), nullptr);
        receive();
    }

  private:
    struct Close {
        void operator()(AVFormatContext* container) const { avformat_close_input(&container); }
    };
    Source source_;
    Owner<AVIOContext> io_;
    std::unique_ptr<AVFormatContext, Close> container_;
    Owner<AVCodecContext> decoder_;
    int index_ = 0;
};

}  // namespace

std::vector<std::byte> encode_mp4(const Clip& clip, std::string& encoded_as) {
    const int width = clip.frames[0].width, height = clip.frames[0].height;
    libav::Writer writer({.container = "mp4",
                          .format = AV_PIX_FMT_YUV420P,
                          .width = width,
                          .height = height,
                          .fps = clip.fps,
                          .comment = clip.text},
                         {{"libx264", {{"crf", "14"}, {"preset", "medium"}, {"tune", "animation"}}},
                          {"libopenh264", {{"b", "2000000"}}},
                          {"libvpx-vp9", {{"crf", "20"}, {"b", "0"}}},
                          {"mpeg4", {{"b", "4000000"}}}});
    encoded_as = encoder_text(writer.codec());
    const auto to_yuv = converter(width, height, AV_PIX_FMT_RGB24, AV_PIX_FMT_YUV420P);
    set_colors(to_yuv.get(), SWS_CS_DEFAULT, true, SWS_CS_ITU709, false);
    for (const Image& frame : clip.frames) {
        const auto rgb = rgb_bytes(frame);
        const auto yuv = libav::make_frame(AV_PIX_FMT_YUV420P, width, height);
        const uint8_t* const from[] = {rgb.data()};
        const int stride[] = {3 * width};
        check(sws_scale(to_yuv.get(), from, stride, 0, height, yuv->data, yuv->linesize),
              "converting colours");
        writer.add(*yuv);
    }
    return writer.finish();
}

Clip decode_libav(std::span<const std::byte> bytes, const std::string& name) {
    Reader reader(bytes, name);
    Clip clip;
    clip.fps = reader.fps();
    clip.text = reader.comment();
    Owner<SwsContext> to_rgb;
    int width = 0, height = 0;
    reader.frames([&](const AVFrame& frame) {
        require_room(name, clip.frames.size() + 1, frame.width, frame.height);
        if (!to_rgb) {
            width = frame.width;
            height = frame.height;
            to_rgb = converter(width, height, static_cast<AVPixelFormat>(frame.format),
                               AV_PIX_FMT_RGB24);
            const bool hd = frame.colorspace == AVCOL_SPC_BT709;
            set_colors(to_rgb.get(), hd ? SWS_CS_ITU709 : SWS_CS_DEFAULT,
                       frame.color_range == AVCOL_RANGE_JPEG, SWS_CS_DEFAULT, true);
        }
        require(frame.width == width && frame.height == height,
                "[video] {} changes its size from {}x{} to {}x{}", name, width, height, frame.width,
                frame.height);
        const auto rgb = libav::make_frame(AV_PIX_FMT_RGB24, width, height);
        check(sws_scale(to_rgb.get(), frame.data, frame.linesize, 0, height, rgb->data,
                        rgb->linesize),
              "converting colours");
        clip.frames.push_back(
            image_of(rgb->data[0], width, height, static_cast<size_t>(rgb->linesize[0])));
    });
    require(!clip.frames.empty(), "[video] {} has no frame that can be decoded", name);
    return clip;
}

}  // namespace fovea
