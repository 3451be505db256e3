#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "backend/error.h"
#include "backend/ops/permute.h"
#include "tests/testing.h"
#include "vision/attentions/attentive_probe.h"
#include "vision/attentions/backbone_attention.h"
#include "vision/models/segment_encoder.h"

/// Attentions of backbones with random weights against PyTorch's outputs
/// (training/make_attentions_golden.py).
namespace fovea {
namespace {

using testing::close;
using testing::device;
using testing::Tolerance;

const Weights& golden() {
    static const Weights weights =
        Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/attentions.safetensors");
    return weights;
}

std::vector<float> values(const std::string& name) {
    return golden().floats("golden." + name, golden().info("golden." + name).shape);
}

Tensor tensor(vk::Stream& stream, const std::string& name, DType dtype) {
    return upload(stream, values(name), golden().info("golden." + name).shape, dtype);
}

Tolerance allowed(DType dtype) {
    return dtype == DType::f16 ? Tolerance{1e-2f, 1e-2f} : Tolerance{1e-4f, 1e-4f};
}

class Attentions : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Precision, Attentions, ::testing::Values(DType::f32, DType::f16),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(Attentions, MatchPyTorch) {
    vk::Stream stream(device());
    const auto config = model_config(golden(), "attentions");
    // The attention kernel is tested in f16 on its own, and compiling it takes seconds.
    const std::set<std::string> of_f16{"contmix", "flow", "focal", "halo", "mala", "rala"};
    for (const auto& [name, options] : config.at("cases").items()) {
        if (GetParam() == DType::f16 && !of_f16.contains(name)) continue;
        SCOPED_TRACE(name);
        const auto module =
            load_backbone_attention(options, Loader(stream, golden(), GetParam(), name + "."),
                                    config.at("width"), config.at("heads"));
        const Tensor x = tensor(stream, name + ".x", GetParam());
        // x itself as the residual: it has the right shape, and is not what the layer makes.
        const Tensor y = module->forward(stream, x, x);
        EXPECT_EQ(y.shape(), x.shape());
        auto expected = values(name + ".y");
        const auto residual = values(name + ".x");
        for (size_t i = 0; i < expected.size(); ++i) expected[i] += residual[i];
        EXPECT_TRUE(close(to_host(stream, y), expected, allowed(GetParam())));
    }
}

TEST_P(Attentions, ProbeMatchesPyTorch) {
    vk::Stream stream(device());
    const AttentiveProbe probe(Loader(stream, golden(), GetParam(), "probe."), 32, 4, 16);
    Tensor maps;
    const Tensor y = probe.forward(stream, tensor(stream, "probe.x", GetParam()), &maps);
    EXPECT_TRUE(close(to_host(stream, y), values("probe.y"), allowed(GetParam())));
    const auto weights = to_host(stream, maps);
    for (size_t row = 0; row < 8; ++row) {
        float sum = 0;
        for (size_t i = 0; i < 13; ++i) sum += weights[row * 13 + i];
        EXPECT_NEAR(sum, 1, 1e-5f);
    }
}

TEST(AttentionsEncoder, ChosenLayersMatchPyTorch) {
    vk::Stream stream(device());
    const Weights weights =
        Weights::open(FOVEA_SOURCE_DIR "/tests/golden/models/segment_attentions.safetensors");
    const auto stored = [&](const std::string& name) {
        return weights.floats(name, weights.info(name).shape);
    };
    const SegmentEncoder encoder(stream, weights, DType::f32);
    const Tensor picture = permute(
        stream,
        upload(stream, stored("golden.picture"), weights.info("golden.picture").shape, DType::f32),
        {0, 2, 3, 1});
    const SegmentFeatures features = encoder.forward(stream, picture);
    EXPECT_EQ(features.rows, 6);
    EXPECT_EQ(features.columns, 5);
    EXPECT_TRUE(close(to_host(stream, features.tokens), stored("golden.features"), {5e-4f, 5e-4f}));
}

TEST(AttentionsConfig, EveryNameHasACaseAndOthersAreRefused) {
    vk::Stream stream(device());
    const auto config = model_config(golden(), "attentions");
    for (const std::string& name : backbone_attentions())
        EXPECT_TRUE(config.at("cases").contains(name)) << name;
    const auto message = [&](const nlohmann::json& entry, int64_t heads = 2) {
        try {
            load_backbone_attention(entry, Loader(stream, golden(), DType::f32, "flow."), 32,
                                    heads);
        } catch (const Error& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    using ::testing::HasSubstr;
    EXPECT_EQ(message("flow"), "accepted");
    EXPECT_THAT(message("flux"), HasSubstr("biformer, cascaded"));
    EXPECT_THAT(message({{"name", "hilo"}, {"windows", 2}}), HasSubstr("low_share"));
    EXPECT_THAT(message(7), HasSubstr("\"name\""));
    EXPECT_THAT(message("flow", 8), HasSubstr("multiple of 8"));
    EXPECT_THAT(message("mala"), HasSubstr("flow.qkvo"));  // the weights of another
}

}  // namespace
}  // namespace fovea
