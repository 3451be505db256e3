#include "vision/libav.h"

#include <array>

#include "backend/error.h"

namespace fovea::libav {

int check(int result, const char* what) {
    if (result >= 0) return result;
    std::array<char, AV_ERROR_MAX_STRING_SIZE> words{};
    av_strerror(result, words.data(), words.size());
    fail("[video] {}: {}", what, words.data());
}

void set_quiet() {
    av_log_set_level(AV_LOG_FATAL);
}

Owner<AVFrame> make_frame(AVPixelFormat format, int width, int height) {
    Owner<AVFrame> frame(av_frame_alloc());
    require(frame != nullptr, "[video] out of memory");
    frame->format = format;
    frame->width = width;
    frame->height = height;
    check(av_frame_get_buffer(frame.get(), 0), "no memory for a frame");
    return frame;
}

namespace {

Owner<AVCodecContext> open(const Writer::Codec& wanted, const Writer::Options& o, bool header) {
    const AVCodec* codec = avcodec_find_encoder_by_name(wanted.name);
    if (!codec) return nullptr;
    Owner<AVCodecContext> encoder(avcodec_alloc_context3(codec));
    require(encoder != nullptr, "[video] out of memory");
    encoder->width = o.width;
    encoder->height = o.height;
    encoder->pix_fmt = o.format;
    encoder->framerate = av_d2q(o.fps, 1 << 16);
    encoder->time_base = av_inv_q(encoder->framerate);
    encoder->thread_count = 1;  // frames in parallel are coded otherwise: other bytes
    encoder->flags |= AV_CODEC_FLAG_BITEXACT;
    if (header) encoder->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (o.format == AV_PIX_FMT_YUV420P) {
        encoder->color_range = AVCOL_RANGE_MPEG;
        encoder->colorspace = AVCOL_SPC_BT709;
        encoder->color_primaries = AVCOL_PRI_BT709;
        encoder->color_trc = AVCOL_TRC_IEC61966_2_1;
    }
    AVDictionary* options = nullptr;
    for (const auto& [name, value] : wanted.options) av_dict_set(&options, name, value, 0);
    const int result = avcodec_open2(encoder.get(), codec, &options);
    av_dict_free(&options);
    return result < 0 ? nullptr : std::move(encoder);
}

}  // namespace

Writer::Writer(const Options& o, const std::vector<Codec>& codecs) {
    set_quiet();
    AVFormatContext* container = nullptr;
    check(avformat_alloc_output_context2(&container, nullptr, o.container, nullptr),
          "no such container");
    container_.reset(container);
    const bool header = (container_->oformat->flags & AVFMT_GLOBALHEADER) != 0;
    std::string names;
    for (const Codec& codec : codecs) {
        encoder_ = open(codec, o, header);
        if (encoder_) break;
        names += (names.empty() ? "" : ", ") + std::string(codec.name);
    }
    require(encoder_ != nullptr,
            "[video] libavcodec on this machine has no encoder for {} of {}x{}; looked for {}",
            o.container, o.width, o.height, names);
    packet_.reset(av_packet_alloc());
    stream_ = avformat_new_stream(container, nullptr);
    require(packet_ && stream_, "[video] out of memory");
    container->flags |= AVFMT_FLAG_BITEXACT;
    if (!o.comment.empty()) av_dict_set(&container->metadata, "comment", o.comment.c_str(), 0);
    stream_->time_base = encoder_->time_base;
    stream_->avg_frame_rate = encoder_->framerate;
    check(avcodec_parameters_from_context(stream_->codecpar, encoder_.get()), "encoder");
    check(avio_open_dyn_buf(&container->pb), "no memory for the file");
    check(avformat_write_header(container, nullptr), "the container's header");
}

void Writer::Close::operator()(AVFormatContext* container) const {
    if (container->pb) {
        uint8_t* bytes = nullptr;
        avio_close_dyn_buf(container->pb, &bytes);
        av_free(bytes);
    }
    avformat_free_context(container);
}

void Writer::drain() {
    while (avcodec_receive_packet(encoder_.get(), packet_.get()) >= 0) {
        packet_->stream_index = 0;
        packet_->duration = 1;
        av_packet_rescale_ts(packet_.get(), encoder_->time_base, stream_->time_base);
        check(av_interleaved_write_frame(container_.get(), packet_.get()), "writing a frame");
    }
}

void Writer::add(AVFrame& frame) {
    frame.pts = frames_++;
    check(avcodec_send_frame(encoder_.get(), &frame), "encoding a frame");
    drain();
}

std::vector<std::byte> Writer::finish() {
    check(avcodec_send_frame(encoder_.get(), nullptr), "ending the stream");
    drain();
    check(av_write_trailer(container_.get()), "ending the file");
    uint8_t* bytes = nullptr;
    const int size = avio_close_dyn_buf(std::exchange(container_->pb, nullptr), &bytes);
    const auto* begin = reinterpret_cast<const std::byte*>(bytes);
    std::vector<std::byte> file(begin, begin + size);
    av_free(bytes);
    return file;
}

}  // namespace fovea::libav
