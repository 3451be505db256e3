#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>

#include "backend/error.h"
#include "backend/ops/attention.h"
#include "backend/ops/block_mass.h"
#include "backend/ops/merge.h"
#include "backend/ops/range_mass.h"
#include "backend/ops/rectified.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/frames.h"
#include "backend/patterns/identity.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"

/// The code of docs/attention.md, so that it compiles (it is not run: sizes are a GPU's), and a
/// test that it is the code of the page.
namespace fovea {
namespace {

/// What the page's code takes as given.
struct Given {
    vk::Device& device;
    vk::Stream& stream;
    Tensor q, k, v, text_k, text_v, k1, v1, k2, v2, bias, table, weights, q_labels, k_labels,
        table_of_labels;
    Pattern pattern;
    std::vector<uint8_t> bytes;
    std::vector<std::vector<uint32_t>> lists;
};

struct Page : Given {
    void first() {
        vk::Stream stream(device);
        const auto pattern =
            neighborhood({.shape = {30, 48, 80}}, {.window = {18, 24, 24}, .stride = {16, 8, 8}});
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void dense_() { const Tensor o = attention(stream, q, k, v, dense()); }

    void neighborhood_() {
        const auto pattern = neighborhood(
            {.shape = {16, 16}},
            {.window = {7, 7}, .stride = {1, 1}, .dilation = {1, 1}, .causal = {false, false}});
        const Tensor o =
            attention(stream, q, k, v, pattern, {.k_extra = text_k, .v_extra = text_v});
    }

    void radial_() {
        const auto pattern = radial({.frames = 21,
                                     .tokens_per_frame = 1560,
                                     .tokens = 32768,
                                     .block = 128,
                                     .decay = 0.2,
                                     .sink_first_frame = true});
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void block_sparse_() {
        const auto pattern = block_sparse({.heads = 1,
                                           .q_blocks = 8,
                                           .k_blocks = 8,
                                           .block_q = 64,
                                           .block_k = 64,
                                           .mask = bytes});
        const auto same =
            block_sparse(BlockSparseLists{.q_blocks = 8, .k_blocks = 8, .key_blocks = lists});
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void reordered_() {
        const auto pattern = reordered({.grid = {.shape = {13, 30, 45}},
                                        .orders = {AxisOrder::fhw, AxisOrder::whf},
                                        .text_tokens = 226,
                                        .block_q = 64,
                                        .block_k = 64,
                                        .mask = bytes});
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void rectified_() {
        const Tensor o = rectified_attention(stream, q, k, v,
                                             {.grid = {.shape = {21, 30, 52}},
                                              .text_tokens = 512,
                                              .block = 64,
                                              .keep = 0.2f,
                                              .mass = 0.3f});
    }

    void frames_() {
        const auto pattern = frames({.shape = {16, 8, 8}}, {.first = true, .previous = true});
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void disc_() {
        const auto pattern = disc({.shape = {64, 64}}, 16, 512);
        const Tensor o = attention(stream, q, k, v, pattern);
    }

    void perturbed() {
        const Tensor u = upload(stream, std::vector<float>{0, 1, 0.5f, 0.1f}, {4}, DType::f32);
        const Tensor o = attention(stream, q, k, v, pattern, {.perturb = u});
    }

    void identity_() {
        const Tensor o = attention(stream, q, k, v, identity({.tokens = 4096, .text_after = 154}));
    }

    void modifiers() {
        AttentionOptions options;
        options.bias = bias;
        options.relative_bias = table;
        options.key_weights = weights;
        options.q_labels = q_labels, options.k_labels = k_labels,
        options.multipliers = table_of_labels;
        const Tensor o = attention(stream, q, k, v, pattern, options);
    }

    void int8_scores() {
        const Tensor o = attention(stream, q, k, v, pattern, {.scores = ScorePrecision::int8});
    }

    void parts() {
        AttentionPart parts[2];
        parts[0].o = attention(stream, q, k1, v1, dense(), {.lse = &parts[0].lse});
        parts[1].o = attention(stream, q, k2, v2, dense(), {.lse = &parts[1].lse});
        const AttentionPart all = merge(stream, parts);
        const Tensor share = range_mass(stream, parts[0].lse, all.lse);
    }

    void mass_() {
        const Tensor mass = block_mass(stream, q, k, dense(), {.block_q = 64, .block_k = 64});
    }

    void own() {
        struct Cross {
            uint32_t rows, columns;
            bool keeps(uint32_t q, uint32_t k) const {
                return q / columns == k / columns || q % columns == k % columns;
            }
            Grid grid() const { return {.shape = {rows, columns}}; }
            std::string key() const { return fmt::format("cross:{}x{}", rows, columns); }
        };
        const Tensor o = attention(stream, q, k, v, Cross{64, 64});
    }
};

std::string text_of(const char* path) {
    std::ifstream file(fmt::format("{}/{}", FOVEA_SOURCE_DIR, path));
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
}

/// Without includes, comments and white space.
std::string bare(const std::string& code) {
    return std::regex_replace(code, std::regex(R"((#include|//)[^\n]*|\s)"), "");
}

TEST(Docs, CodeOfAttentionIsCompiledHere) {
    const std::string page = text_of("docs/attention.md");
    const std::string here = bare(text_of("tests/docs_test.cpp"));
    const std::string begin = "```cpp\n", end = "```";
    int count = 0;
    for (size_t at = page.find(begin); at != std::string::npos; at = page.find(begin, at)) {
        at += begin.size();
        const std::string code = page.substr(at, page.find(end, at) - at);
        EXPECT_NE(here.find(bare(code)), std::string::npos) << code;
        ++count;
    }
    EXPECT_GE(count, 13);
}

}  // namespace
}  // namespace fovea
