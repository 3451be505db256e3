#include <gmock/gmock.h>

#include "backend/error.h"
#include "backend/ops/attention_kernel.h"
#include "tests/testing.h"

/// Which path, tile and block attention takes at sizes that are used, on devices that need not be
/// here: nothing runs.
namespace fovea {
namespace {

vk::DeviceInfo gpu(std::vector<vk::MatrixShape> matrices, bool nv2) {
    vk::DeviceInfo device;
    device.name = "a GPU";
    device.type = vk::DeviceType::discrete;
    device.limits.shared_memory = 48 << 10;
    device.limits.subgroup_size = 32;
    device.limits.workgroup_invocations = 1024;
    device.fp16_storage = true;
    device.fp16_matrices = std::move(matrices);
    device.scalar.ok = true;
    device.khr.ok = !device.fp16_matrices.empty();
    device.nv2.ok = nv2;
    return device;
}

vk::DeviceInfo cpu() {
    vk::DeviceInfo device = gpu({}, false);
    device.type = vk::DeviceType::cpu;
    device.limits.subgroup_size = 8;
    device.limits.shared_memory = 32 << 10;
    return device;
}

AttentionProblem problem(uint32_t heads, uint32_t tokens, uint32_t head_dim,
                         DType dtype = DType::f16) {
    return self_attention_problem(heads, tokens, head_dim, dtype);
}

const std::vector<vk::MatrixShape> kUsual = {{16, 8, 16}, {16, 16, 16}};

bool built(AttentionPath path) {
    for (const auto& [each, support] : attention_paths(gpu(kUsual, true)))
        if (each == path) return support.ok;
    return false;
}

/// What every choice must hold, whatever was measured to be fast.
void expect_sound(const AttentionChoice& c, const vk::DeviceInfo& device, TileShape granularity) {
    const TileShape block = c.block();
    EXPECT_LE(c.tile.subgroups * c.lanes, device.limits.workgroup_invocations);
    EXPECT_GE(c.tile.subgroups, 1u);
    EXPECT_GE(c.tile.row_tiles, 1u);
    if (granularity.q > 0) {
        EXPECT_EQ(granularity.q % block.q, 0u);  // else blocks need masks
        EXPECT_EQ(granularity.k % block.k, 0u);
    }
}

std::string refusal(const vk::DeviceInfo& device, const AttentionProblem& p, AttentionPath path) {
    try {
        choose_attention(device, p, {0, 0}, path);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(AttentionChoice, FitsTheDeviceAtEverySize) {
    const std::pair<AttentionPath, vk::DeviceInfo> paths[] = {
        {AttentionPath::scalar, cpu()},
        {AttentionPath::scalar, gpu({}, false)},
        {AttentionPath::khr, gpu(kUsual, true)},
        {AttentionPath::nv2, gpu(kUsual, true)}};
    for (const auto& [path, device] : paths) {
        if (path != AttentionPath::scalar && !built(path)) continue;
        for (const uint32_t head_dim : {8u, 40u, 64u, 72u, 128u, 160u, 256u})
            for (const uint32_t tokens : {1u, 77u, 256u, 4096u, 4608u, 115200u})
                for (const uint32_t heads : {1u, 8u, 24u})
                    for (const uint32_t side : {0u, 16u, 32u, 64u, 128u}) {
                        SCOPED_TRACE(fmt::format("{} {} heads {} tokens {} blocks {}",
                                                 name_of(path), heads, tokens, head_dim, side));
                        const AttentionChoice c = choose_attention(
                            device, problem(heads, tokens, head_dim), {side, side}, path);
                        EXPECT_EQ(c.path, path);
                        EXPECT_FALSE(c.emulated);
                        expect_sound(c, device, {side, side});
                        const AttentionKernel kernel =
                            attention_kernel(c, device, problem(heads, tokens, head_dim));
                        EXPECT_EQ(kernel.constants[0], c.tile.subgroups * c.lanes);
                        EXPECT_EQ(kernel.constants[3], c.block().k);
                        EXPECT_EQ(kernel.full_subgroups, path != AttentionPath::scalar);
                    }
    }
}

TEST(AttentionChoice, Int8ScoresWhereTheDeviceHasThem) {
    vk::DeviceInfo device = gpu(kUsual, true);
    AttentionProblem p = problem(24, 4608, 128);
    p.scores = ScorePrecision::int8;
    for (const AttentionPath path : {AttentionPath::khr, AttentionPath::nv2}) {
        if (!built(path)) continue;
        SCOPED_TRACE(name_of(path));
        device.int8_matrices = {{16, 8, 32}};  // not of the m × n of the path's fp16 products
        device.int8_arithmetic = true;
        EXPECT_THAT(refusal(device, p, path), ::testing::HasSubstr("no int8 × int8 → int32"));
        device.int8_matrices.push_back({16, 16, 32});
        device.int8_arithmetic = false;
        EXPECT_THAT(refusal(device, p, path), ::testing::HasSubstr("8-bit integers"));
        device.int8_arithmetic = true;
        for (const uint32_t head_dim : {8u, 64u, 72u, 128u, 256u})
            for (const uint32_t tokens : {1u, 77u, 4608u, 115200u}) {
                p = problem(24, tokens, head_dim);
                p.scores = ScorePrecision::int8;
                const AttentionChoice c = choose_attention(device, p, {0, 0}, path);
                EXPECT_EQ(c.score_k, 32u);
                EXPECT_EQ(attention_kernel(c, device, p).constants.back(), 32u);
                expect_sound(c, device, {0, 0});
            }
    }
    EXPECT_THAT(refusal(device, p, AttentionPath::scalar), ::testing::HasSubstr("matrix units"));
}

TEST(AttentionChoice, ShortQueriesTakeSmallWorkgroups) {
    if (!built(AttentionPath::nv2)) GTEST_SKIP() << "nv2 is not built";
    const vk::DeviceInfo device = gpu(kUsual, true);
    const auto rows = [&](uint32_t tokens) {
        return choose_attention(device, problem(24, tokens, 128), {0, 0}, AttentionPath::nv2)
            .block()
            .q;
    };
    EXPECT_EQ(rows(115200), 128u);
    EXPECT_LE(rows(16), 16u);
    EXPECT_LE(rows(40), 64u);
}

TEST(AttentionChoice, PathsByDeviceAndType) {
    const auto path = [](const vk::DeviceInfo& device, DType dtype) {
        return choose_attention(device, problem(1, 64, 64, dtype), {0, 0}).path;
    };
    const bool forced = std::getenv("FOVEA_PATH") != nullptr;
    if (forced) GTEST_SKIP() << "FOVEA_PATH is set";
    EXPECT_EQ(path(gpu({}, false), DType::f16), AttentionPath::scalar);
    EXPECT_EQ(path(cpu(), DType::f32), AttentionPath::scalar);
    EXPECT_EQ(path(gpu(kUsual, true), DType::f32), AttentionPath::scalar);
    if (built(AttentionPath::khr)) {
        EXPECT_EQ(path(gpu(kUsual, false), DType::f16), AttentionPath::khr);
    }
    if (built(AttentionPath::nv2)) {
        EXPECT_EQ(path(gpu(kUsual, true), DType::f16), AttentionPath::nv2);
    }
    EXPECT_THROW(choose_attention(gpu(kUsual, true), problem(1, 64, 64, DType::f32), {0, 0},
                                  AttentionPath::nv2),
                 Error);
}

TEST(AttentionChoice, SoftwareVulkanTakesTwoRowsAnInvocation) {
    const AttentionChoice c =
        choose_attention(cpu(), problem(1, 1024, 64, DType::f32), {0, 0}, AttentionPath::scalar);
    EXPECT_EQ(c.block(), (TileShape{16, 16}));
    EXPECT_EQ(choose_attention(gpu({}, false), problem(1, 1024, 64, DType::f32), {0, 0},
                               AttentionPath::scalar)
                  .block(),
              (TileShape{64, 16}));
}

}  // namespace
}  // namespace fovea
