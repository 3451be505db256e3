#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "backend/ops/permute.h"
#include "tests/testing.h"
#include "vision/models/autoencoder.h"
#include "vision/models/dit.h"
#include "vision/models/evaluator.h"
#include "vision/models/text_encoder.h"

/// Tiny models with random weights against PyTorch's outputs (training/make_golden.py), and the
/// autoencoder against foreign weights.
namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::Tolerance;

Weights golden(const char* name) {
    return Weights::open(std::string(FOVEA_SOURCE_DIR) + "/tests/golden/models/" + name +
                         ".safetensors");
}

std::vector<float> values(const Weights& weights, const std::string& name) {
    return weights.floats("golden." + name, weights.info("golden." + name).shape);
}

// A stored tensor on the device, as it lies.
Tensor tensor(vk::Stream& stream, const Weights& weights, const std::string& name, DType dtype) {
    return upload(stream, values(weights, name), weights.info("golden." + name).shape, dtype);
}

Tensor nhwc(vk::Stream& stream, const Tensor& nchw) {
    return permute(stream, nchw, {0, 2, 3, 1});
}
Tensor nchw(vk::Stream& stream, const Tensor& nhwc) {
    return permute(stream, nhwc, {0, 3, 1, 2});
}

// The first frame of every clip, as clips of one frame.
Tensor picture_of(vk::Stream& stream, const Tensor& clips) {
    Shape shape = clips.shape();
    shape[1] = 1;
    const Tensor first = empty(stream.device(), shape, clips.dtype());
    for (int64_t i = 0; i < clips.dim(0); ++i)
        stream.copy(read(clips.index(i).slice(0, 1)),
                    write(first.slice(i, 1).reshape({1, shape[2], shape[3], shape[4]})));
    return first;
}

// Several layers deep: the ops' own tolerances add up.
Tolerance deep(DType dtype) {
    return dtype == DType::f16 ? Tolerance{2e-2f, 1e-2f} : Tolerance{2e-4f, 1e-4f};
}

class Models : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Precision, Models, ::testing::Values(DType::f32, DType::f16),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(Models, TextEncoderMatchesPyTorch) {
    vk::Stream stream(device());
    const Weights weights = golden("text");
    const TextEncoder model(stream, weights, GetParam());
    const auto bytes = weights.info("golden.ids").bytes;
    std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
    std::memcpy(ids.data(), bytes.data(), bytes.size());
    EXPECT_TRUE(close(to_host(stream, model.forward(stream, ids)), values(weights, "states"),
                      deep(GetParam())));
}

TEST_P(Models, DitMatchesPyTorch) {
    vk::Stream stream(device());
    const Weights weights = golden("dit");
    const Dit model(stream, weights, GetParam());
    const Tensor z = nhwc(stream, tensor(stream, weights, "z", GetParam()));
    const Tensor states = tensor(stream, weights, "states", GetParam());
    const auto expected = values(weights, "velocity"), times = values(weights, "t");
    const size_t each = expected.size() / times.size();
    for (size_t i = 0; i < times.size();
         ++i) {  // the golden batch has a time of its own per sample
        const auto context = model.context(stream, states.slice(static_cast<int64_t>(i), 1));
        const Tensor v =
            model.forward(stream, z.slice(static_cast<int64_t>(i), 1), times[i], context);
        EXPECT_TRUE(close(to_host(stream, nchw(stream, v)),
                          std::span(expected).subspan(i * each, each), deep(GetParam())))
            << "time " << times[i];
    }
}

TEST_P(Models, DitMatchesPyTorchOnClips) {
    vk::Stream stream(device());
    const Weights weights = golden("dit");
    const Dit model(stream, weights, GetParam());
    const Tensor z = tensor(stream, weights, "clip.z", GetParam());  // (batch, frames, h, w, c)
    const Tensor states = tensor(stream, weights, "states", GetParam());
    const auto times = values(weights, "t");
    const Tensor first_frames = picture_of(stream, z);
    for (const auto& [name, input] :
         {std::pair{"clip.velocity", z}, {"clip.picture_velocity", first_frames}}) {
        const auto expected = values(weights, name);
        const size_t each = expected.size() / times.size();
        for (size_t i = 0; i < times.size(); ++i) {
            const auto sample = static_cast<int64_t>(i);
            const auto context = model.context(stream, states.slice(sample, 1));
            const Tensor v = model.forward(stream, input.slice(sample, 1), times[i], context);
            EXPECT_TRUE(close(to_host(stream, v), std::span(expected).subspan(i * each, each),
                              deep(GetParam())))
                << name << ", time " << times[i];
        }
    }
}

// The shipped weights, so that they and what the tiny model stands for stay the same thing.
TEST_P(Models, DefaultModelMatchesPyTorchOnAClip) {
    vk::Stream stream(device());
    const Weights expected = golden("default_clip");
    const auto shipped = [](const char* name) {
        return Weights::open(std::string(FOVEA_SOURCE_DIR "/assets/default/") + name);
    };
    const TextEncoder text(stream, shipped("text.safetensors"), GetParam());
    const auto bytes = expected.info("golden.ids").bytes;
    std::vector<int32_t> ids(bytes.size() / sizeof(int32_t));
    std::memcpy(ids.data(), bytes.data(), bytes.size());
    const Tensor states = text.forward(stream, ids);
    EXPECT_TRUE(close(to_host(stream, states), values(expected, "states"), deep(GetParam())));

    const Dit model(stream, shipped("dit.safetensors"), GetParam());
    const Tensor v = model.forward(stream, tensor(stream, expected, "z", GetParam()),
                                   values(expected, "t").front(), model.context(stream, states));
    EXPECT_TRUE(close(to_host(stream, v), values(expected, "velocity"), deep(GetParam())));
}

TEST_P(Models, DitTreatsEverySampleOfABatchAlone) {
    vk::Stream stream(device());
    const Weights weights = golden("dit");
    const Dit model(stream, weights, GetParam());
    const Tensor z = nhwc(stream, tensor(stream, weights, "z", GetParam()));
    const Tensor states = tensor(stream, weights, "states", GetParam());
    const auto both =
        to_host(stream, model.forward(stream, z, 0.5f, model.context(stream, states)));
    const auto second = to_host(stream, model.forward(stream, z.slice(1, 1), 0.5f,
                                                      model.context(stream, states.slice(1, 1))));
    EXPECT_TRUE(close(second, std::span(both).subspan(second.size()),
                      testing::tolerance_of_batches(GetParam())));
}

TEST_P(Models, EvaluatorMatchesPyTorch) {
    vk::Stream stream(device());
    const Weights weights = golden("evaluator");
    const Evaluator model(stream, weights, GetParam());
    const auto found =
        model.forward(stream, nhwc(stream, tensor(stream, weights, "picture", GetParam())));
    EXPECT_TRUE(
        close(to_host(stream, found.objects), values(weights, "objects"), deep(GetParam())));
    EXPECT_TRUE(close(to_host(stream, found.color), values(weights, "color"), deep(GetParam())));
    EXPECT_TRUE(close(to_host(stream, found.style), values(weights, "style"), deep(GetParam())));
}

TEST_P(Models, AutoencoderLoadsForeignWeights) {
    const std::filesystem::path folder = testing::shared_folder() + "/weights";
    if (!std::filesystem::exists(folder / "taef2_golden.safetensors"))
        GTEST_SKIP() << "no taef2 weights in " << folder;
    vk::Stream stream(device());
    const Weights expected = Weights::open(folder / "taef2_golden.safetensors");
    const Encoder encoder(
        Loader(stream, Weights::open(folder / "taef2_encoder.safetensors"), GetParam()));
    const Decoder decoder(
        Loader(stream, Weights::open(folder / "taef2_decoder.safetensors"), GetParam()));
    const auto load = [&](const char* name) {
        const auto& shape = expected.info(name).shape;
        return upload(stream, expected.floats(name, shape), shape, GetParam());
    };
    const Tolerance stated = GetParam() == DType::f16 ? Tolerance{2e-2f, 0} : Tolerance{2e-3f, 0};
    const Tensor latent = encoder.forward(stream, nhwc(stream, load("image")));
    EXPECT_TRUE(
        close(to_host(stream, nchw(stream, latent)), to_host(stream, load("latent")), stated));
    const Tensor picture = decoder.forward(stream, nhwc(stream, load("latent")));
    EXPECT_TRUE(
        close(to_host(stream, nchw(stream, picture)), to_host(stream, load("decoded")), stated));
}

}  // namespace
}  // namespace fovea
