/// Cases of the shared folder (parity/README.md there): inputs, a pattern as JSON, and the output
/// of a float64 oracle that agrees with the published implementations. Every case on every path.

#include <algorithm>
#include <filesystem>

#include "backend/error.h"
#include "pipelines/attention_case.h"
#include "tests/testing.h"

namespace fovea {
namespace {

using testing::device;

/// One row that skips with its reason where the folder is absent.
std::vector<std::string> cases() {
    const std::string folder = testing::shared_folder() + "/parity";
    std::vector<std::string> files;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(folder, error))
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path().stem());
    std::sort(files.begin(), files.end());
    return files.empty() ? std::vector<std::string>{"absent"} : files;
}

class Parity : public ::testing::TestWithParam<std::tuple<std::string, AttentionPath, DType>> {};

TEST_P(Parity, EqualsTheOracle) {
    const auto& [name, path, dtype] = GetParam();
    const std::string folder = testing::shared_folder() + "/parity/";
    if (name == "absent") GTEST_SKIP() << "no parity cases in " << folder;
    for (const auto& [each, support] : attention_paths(device().info(), dtype))
        if (each == path && !support.ok) GTEST_SKIP() << name_of(path) << ": " << support.why;

    const AttentionCase c = read_attention_case(Weights::open(folder + name + ".safetensors"));
    ASSERT_TRUE(c.o && c.lse);
    EXPECT_EQ(c.wrong_blocks, 0u);
    vk::Stream stream(device());
    const AttentionCaseResult result = run_attention_case(stream, c, dtype, path);
    // The README's: an fp32 computation, and fp16 storage with fp32 sums (its aim).
    const bool half = dtype == DType::f16;
    EXPECT_TRUE(testing::close(result.o.values, c.o.values, {half ? 2e-3f : 1e-4f, 0}));
    EXPECT_TRUE(testing::close(result.lse.values, c.lse.values, {half ? 5e-3f : 1e-3f, 0}));
    EXPECT_TRUE(result.ok);
    EXPECT_LE(*result.max_err_o, half ? 2e-3f : 1e-4f);
}

const auto kName = [](const auto& info) {
    const auto& [name, path, dtype] = info.param;
    return fmt::format("{}_{}_{}", name, name_of(path), name_of(dtype));
};

INSTANTIATE_TEST_SUITE_P(Scalar, Parity,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(AttentionPath::scalar),
                                            ::testing::Values(DType::f32, DType::f16)),
                         kName);
INSTANTIATE_TEST_SUITE_P(Matrices, Parity,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(AttentionPath::khr,
                                                              AttentionPath::nv2),
                                            ::testing::Values(DType::f16)),
                         kName);

}  // namespace
}  // namespace fovea
