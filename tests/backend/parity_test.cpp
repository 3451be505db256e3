/// Cases of the shared folder (parity/README.md there): inputs, a pattern as JSON, and the output
/// of a float64 oracle that agrees with the published implementations.

#if __has_include("vision/weights.h")

#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "backend/ops/attention.h"
#include "tests/testing.h"
#include "vision/weights.h"

namespace fovea {
namespace {

using nlohmann::json;
using testing::device;

std::vector<uint32_t> numbers(const json& list) {
    return list.get<std::vector<uint32_t>>();
}

/// Absent with a reason where this version has no such pattern.
std::optional<Pattern> pattern_of(const json& spec, std::string& why) {
    const json& pattern = spec.at("pattern");
    const std::string type = pattern.at("type");
    if (spec.contains("perturb")) {
        why = "perturbed attention is not yet supported";
    } else if (type == "dense") {
        return dense();
    } else if (type == "neighborhood") {
        return neighborhood({.shape = numbers(pattern.at("grid"))},
                            {.window = numbers(pattern.at("window")),
                             .stride = numbers(pattern.at("stride")),
                             .dilation = numbers(pattern.at("dilation")),
                             .causal = pattern.at("causal").get<std::vector<bool>>()});
    } else {
        why = "pattern " + type + " is not yet supported";
    }
    return {};
}

struct Case {
    std::string file, skip;
    json spec;
};

/// One row that skips with its reason where the folder is absent.
std::vector<Case> cases() {
    const std::string folder = testing::shared_folder() + "/parity";
    std::ifstream file(folder + "/index.json");
    if (!file) return {{"absent", "no parity cases in " + folder, {}}};
    std::vector<Case> list;
    for (const json& entry : json::parse(file))
        list.push_back({entry.at("file"), "", entry.at("spec")});
    return list;
}

class Parity : public ::testing::TestWithParam<std::tuple<Case, DType>> {};

TEST_P(Parity, EqualsTheOracle) {
    const auto& [c, dtype] = GetParam();
    std::string skip = c.skip;
    const auto pattern = skip.empty() ? pattern_of(c.spec, skip) : std::nullopt;
    if (!pattern) GTEST_SKIP() << skip;

    const Weights weights = Weights::open(testing::shared_folder() + "/parity/" + c.file);
    vk::Stream stream(device());
    const auto host = [&](const char* name) {
        return weights.floats(name, weights.info(name).shape);
    };
    const auto tensor = [&, type = dtype](const char* name) {
        return upload(stream, host(name), weights.info(name).shape, type);
    };
    Tensor lse;
    AttentionOptions options{.scale = c.spec.value("scale", 0.0f), .lse = &lse};
    if (weights.contains("k_extra")) {
        options.k_extra = tensor("k_extra");
        options.v_extra = tensor("v_extra");
    }
    const Tensor o = attention(stream, tensor("q"), tensor("k"), tensor("v"), *pattern, options);
    // The README's: an fp32 computation, and fp16 storage with fp32 sums (its aim).
    const bool half = dtype == DType::f16;
    EXPECT_TRUE(testing::close(to_host(stream, o), host("o"), {half ? 2e-3f : 1e-4f, 0}));
    EXPECT_TRUE(testing::close(to_host(stream, lse), host("lse"), {half ? 5e-3f : 1e-3f, 0}));
}

INSTANTIATE_TEST_SUITE_P(Cases, Parity,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(DType::f32, DType::f16)),
                         [](const auto& info) {
                             const std::string file = std::get<0>(info.param).file;
                             return file.substr(0, file.find('.')) + "_" +
                                    name_of(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace fovea

#else

#include <gtest/gtest.h>

TEST(Parity, EqualsTheOracle) {
    GTEST_SKIP() << "no reader of safetensors in this version";
}

#endif
