#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string_view>

#include "backend/error.h"
#include "vision/video_codecs.h"

/// Animated WebP: https://developers.google.com/speed/webp/docs/riff_container. The text is the
/// dc:description of an XMP packet, which other programs show.
namespace fovea {
namespace {

constexpr float kQuality = 90;

template <auto free>
struct Free {
    template <typename T>
    void operator()(T* object) const {
        free(object);
    }
};

struct Data : WebPData {
    Data() { WebPDataInit(this); }
    ~Data() { WebPDataClear(this); }
    Data(const Data&) = delete;
    Data& operator=(const Data&) = delete;
};

constexpr std::string_view kBefore =
    "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF "
    "xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\"><rdf:Description rdf:about=\"\" "
    "xmlns:dc=\"http://purl.org/dc/elements/1.1/\"><dc:description><rdf:Alt><rdf:li "
    "xml:lang=\"x-default\">";
constexpr std::string_view kAfter =
    "</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF></x:xmpmeta>";
constexpr std::pair<char, std::string_view> kEscapes[] = {
    {'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}};

std::string to_xmp(const std::string& text) {
    std::string xmp(kBefore);
    for (const char letter : text) {
        std::string_view written(&letter, 1);
        for (const auto& [special, escape] : kEscapes)
            if (letter == special) written = escape;
        xmp += written;
    }
    return xmp += kAfter;
}

// Empty where the packet is not one of ours.
std::string from_xmp(std::string_view xmp) {
    const size_t begin = xmp.find(kBefore), end = xmp.find(kAfter);
    if (begin == xmp.npos || end == xmp.npos || end < begin + kBefore.size()) return {};
    std::string_view rest = xmp.substr(begin + kBefore.size(), end - begin - kBefore.size());
    std::string text;
    while (!rest.empty()) {
        size_t used = 1;
        char letter = rest[0];
        for (const auto& [special, escape] : kEscapes)
            if (rest.starts_with(escape)) {
                letter = special;
                used = escape.size();
            }
        text += letter;
        rest.remove_prefix(used);
    }
    return text;
}

void assemble(Data& file, const std::string& xmp) {
    const std::unique_ptr<WebPMux, Free<WebPMuxDelete>> mux(WebPMuxCreate(&file, 1));
    const WebPData chunk{reinterpret_cast<const uint8_t*>(xmp.data()), xmp.size()};
    Data whole;
    require(mux && WebPMuxSetChunk(mux.get(), "XMP ", &chunk, 1) == WEBP_MUX_OK &&
                WebPMuxAssemble(mux.get(), &whole) == WEBP_MUX_OK,
            "[webp] out of memory for the file's text");
    std::swap(static_cast<WebPData&>(file), static_cast<WebPData&>(whole));
}

}  // namespace

std::vector<std::byte> encode_webp(const Clip& clip) {
    const int width = clip.frames[0].width, height = clip.frames[0].height;
    require(width <= WEBP_MAX_DIMENSION && height <= WEBP_MAX_DIMENSION,
            "[webp] at most {} pixels a side expected, found {}x{}", WEBP_MAX_DIMENSION, width,
            height);
    WebPAnimEncoderOptions options;
    WebPConfig config;
    require(WebPAnimEncoderOptionsInit(&options) &&
                WebPConfigPreset(&config, WEBP_PRESET_DRAWING, kQuality),
            "[webp] the library on this machine is of another version than its headers");
    config.use_sharp_yuv = 1;
    const std::unique_ptr<WebPAnimEncoder, Free<WebPAnimEncoderDelete>> encoder(
        WebPAnimEncoderNew(width, height, &options));
    require(encoder != nullptr, "[webp] out of memory for {}x{} pixels", width, height);
    const auto milliseconds = [&](size_t frame) {
        return static_cast<int>(std::lround(static_cast<double>(frame) * 1000 / clip.fps));
    };
    for (size_t i = 0; i < clip.frames.size(); ++i) {
        WebPPicture picture;
        require(WebPPictureInit(&picture), "[webp] another version of the library found");
        const std::unique_ptr<WebPPicture, Free<WebPPictureFree>> owner(&picture);
        picture.width = width;
        picture.height = height;
        picture.use_argb = 1;
        const auto rgb = rgb_bytes(clip.frames[i]);
        require(WebPPictureImportRGB(&picture, rgb.data(), 3 * width) &&
                    WebPAnimEncoderAdd(encoder.get(), &picture, milliseconds(i), &config),
                "[webp] frame {} cannot be encoded: {}", i, WebPAnimEncoderGetError(encoder.get()));
    }
    Data file;
    require(WebPAnimEncoderAdd(encoder.get(), nullptr, milliseconds(clip.frames.size()), nullptr) &&
                WebPAnimEncoderAssemble(encoder.get(), &file),
            "[webp] the animation cannot be put together: {}",
            WebPAnimEncoderGetError(encoder.get()));
    if (!clip.text.empty()) assemble(file, to_xmp(clip.text));
    const auto* bytes = reinterpret_cast<const std::byte*>(file.bytes);
    return {bytes, bytes + file.size};
}

Clip decode_webp(std::span<const std::byte> bytes, const std::string& name) {
    const WebPData data{reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    const std::unique_ptr<WebPDemuxer, Free<WebPDemuxDelete>> demuxer(WebPDemux(&data));
    require(demuxer != nullptr, "[webp] {} is a WebP picture, but damaged", name);
    const auto feature = [&](WebPFormatFeature which) {
        return static_cast<int>(WebPDemuxGetI(demuxer.get(), which));
    };
    const int width = feature(WEBP_FF_CANVAS_WIDTH), height = feature(WEBP_FF_CANVAS_HEIGHT);
    require_room(name, static_cast<size_t>(feature(WEBP_FF_FRAME_COUNT)), width, height);

    WebPAnimDecoderOptions options;
    require(WebPAnimDecoderOptionsInit(&options), "[webp] another version of the library found");
    const std::unique_ptr<WebPAnimDecoder, Free<WebPAnimDecoderDelete>> decoder(
        WebPAnimDecoderNew(&data, &options));
    require(decoder != nullptr, "[webp] {} is a WebP picture, but damaged", name);
    Clip clip;
    int end = 0;
    while (WebPAnimDecoderHasMoreFrames(decoder.get())) {
        uint8_t* rgba = nullptr;
        require(WebPAnimDecoderGetNext(decoder.get(), &rgba, &end) == 1,
                "[webp] {} is damaged in frame {}", name, clip.frames.size());
        Image image{.width = width, .height = height, .rgb = {}};
        const size_t pixels = static_cast<size_t>(width) * static_cast<size_t>(height);
        image.rgb.reserve(3 * pixels);
        for (size_t i = 0; i < pixels; ++i)
            for (size_t c = 0; c < 3; ++c) {  // on white, as load_image has it
                const float alpha = static_cast<float>(rgba[4 * i + 3]) / 255.0f;
                image.rgb.push_back(static_cast<float>(rgba[4 * i + c]) / 255.0f * alpha + 1 -
                                    alpha);
            }
        clip.frames.push_back(std::move(image));
    }
    require(!clip.frames.empty(), "[webp] {} has no frames", name);
    if (end > 0) clip.fps = static_cast<double>(clip.frames.size()) * 1000 / end;

    WebPChunkIterator chunk;
    if (WebPDemuxGetChunk(demuxer.get(), "XMP ", 1, &chunk)) {
        clip.text = from_xmp({reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size});
        WebPDemuxReleaseChunkIterator(&chunk);
    }
    return clip;
}

}  // namespace fovea
