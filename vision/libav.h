#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// libavcodec, libavformat and libswscale with owners and errors; seen by their own source files
/// only.
namespace fovea::libav {

struct Deleter {
    void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
    void operator()(AVFrame* frame) const { av_frame_free(&frame); }
    void operator()(AVPacket* packet) const { av_packet_free(&packet); }
    void operator()(SwsContext* context) const { sws_freeContext(context); }
    void operator()(AVIOContext* reader) const {
        av_freep(&reader->buffer);
        avio_context_free(&reader);
    }
};
template <typename T>
using Owner = std::unique_ptr<T, Deleter>;

/// Throws Error with the library's words where result is negative.
int check(int result, const char* what);
void set_quiet();  ///< errors are ours to report

/// Of one picture, with memory of its own.
Owner<AVFrame> make_frame(AVPixelFormat format, int width, int height);

/// Encoder and container of one video stream, written to memory: the same bytes on every run.
class Writer {
  public:
    struct Options {
        const char* container;  ///< "mp4" …
        AVPixelFormat format;
        int width, height;
        double fps;
        std::string comment;
    };
    /// Codecs by name, the best first: the first that this machine has and that opens. Throws
    /// Error.
    struct Codec {
        const char* name;
        std::vector<std::pair<const char*, const char*>> options;
    };
    Writer(const Options& options, const std::vector<Codec>& codecs);

    const char* codec() const { return encoder_->codec->name; }
    void add(AVFrame& frame);  ///< the next one
    std::vector<std::byte> finish();

  private:
    struct Close {  ///< with the file in memory, unless finish() took it
        void operator()(AVFormatContext* container) const;
    };
    void drain();

    std::unique_ptr<AVFormatContext, Close> container_;
    Owner<AVCodecContext> encoder_;
    Owner<AVPacket> packet_;
    AVStream* stream_ = nullptr;
    int64_t frames_ = 0;
};

}  // namespace fovea::libav
