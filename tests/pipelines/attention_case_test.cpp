#include "pipelines/attention_case.h"

#include <gmock/gmock.h>

#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "backend/error.h"
#include "backend/reference/attention.h"
#include "tests/testing.h"

/// Cases written here, then damaged: whatever a file holds ends in a result or in one Error.
namespace fovea {
namespace {

using nlohmann::json;
using testing::device;
using ::testing::HasSubstr;

struct Stored {
    std::string type;  ///< of safetensors
    Shape shape;
    std::vector<float> values;  ///< written as the type says; other types are written as zeros
};

/// A file before it is bytes.
struct Draft {
    json metadata = json::object();
    json spec;
    std::map<std::string, Stored> tensors;

    std::vector<std::byte> bytes() const {
        json header, meta = metadata;
        if (!spec.is_null()) meta["spec"] = spec.dump();
        if (!meta.empty()) header["__metadata__"] = meta;
        std::string data;
        for (const auto& [name, t] : tensors) {
            const size_t begin = data.size();
            size_t count = 1;
            for (const int64_t extent : t.shape) count *= static_cast<size_t>(extent);
            const size_t width = t.type == "F32"   ? 4
                                 : t.type == "I64" ? 8
                                 : t.type == "F16" ? 2
                                                   : 1;
            data.resize(begin + width * count);
            for (size_t i = 0; i < std::min(count, t.values.size()); ++i) {
                const uint16_t half = float_to_half(t.values[i]);
                if (t.type == "F32") std::memcpy(&data[begin + i * 4], &t.values[i], 4);
                if (t.type == "F16") std::memcpy(&data[begin + i * 2], &half, 2);
                if (t.type == "U8") data[begin + i] = static_cast<char>(t.values[i]);
            }
            header[name] = {
                {"dtype", t.type}, {"shape", t.shape}, {"data_offsets", {begin, data.size()}}};
        }
        const std::string text = header.dump();
        std::vector<std::byte> file(8 + text.size() + data.size());
        const uint64_t length = text.size();
        std::memcpy(file.data(), &length, 8);
        std::memcpy(file.data() + 8, text.data(), text.size());
        if (!data.empty()) std::memcpy(file.data() + 8 + text.size(), data.data(), data.size());
        return file;
    }
};

Stored values(std::string type, Shape shape, uint32_t seed) {
    size_t count = 1;
    for (const int64_t extent : shape) count *= static_cast<size_t>(extent);
    return {std::move(type), std::move(shape), testing::random_values(count, seed, DType::f16)};
}

Draft draft(json pattern, int64_t heads, int64_t tokens) {
    Draft d{.spec = {{"pattern", std::move(pattern)}}};
    for (const auto& [name, seed] : {std::pair{"q", 1u}, {"k", 2u}, {"v", 3u}})
        d.tensors[name] = values("F16", {1, heads, tokens, 8}, seed);
    return d;
}

Stored mask(int64_t heads, int64_t rows, int64_t cols) {
    Stored mask{"U8", {heads, rows, cols}, {}};
    for (int64_t i = 0; i < heads * rows * cols; ++i) mask.values.push_back(i % 3 != 1);
    return mask;
}

/// A good case of every pattern.
std::map<std::string, Draft> drafts() {
    std::map<std::string, Draft> all;
    all["dense"] = draft({{"type", "dense"}}, 2, 6);
    all["dense"].spec["scale"] = 0.5;
    all["dense"].tensors["k_extra"] = values("F16", {1, 1, 3, 8}, 4);
    all["dense"].tensors["v_extra"] = values("F16", {1, 1, 3, 8}, 5);
    for (const char* name : {"k", "v"}) all["dense"].tensors[name] = values("F16", {1, 1, 9, 8}, 6);
    all["neighborhood"] = draft({{"type", "neighborhood"},
                                 {"grid", {4, 6}},
                                 {"window", {3, 2}},
                                 {"stride", {1, 2}},
                                 {"dilation", {1, 3}},
                                 {"causal", {true, false}}},
                                2, 24);
    all["neighborhood"].spec["perturb"] = {0, 0.25};
    all["radial"] = draft({{"type", "radial"},
                           {"frames", 4},
                           {"tokens_per_frame", 9},
                           {"tokens", 40},
                           {"block", 8},
                           {"decay", 0.5},
                           {"sink_first_frame", true}},
                          1, 40);
    all["block_sparse"] = draft({{"type", "block_sparse"}, {"block_q", 8}, {"block_k", 16}}, 2, 21);
    all["block_sparse"].tensors["block_mask"] = mask(1, 3, 2);
    all["reordered"] = draft({{"type", "reordered"},
                              {"grid", {2, 3, 4}},
                              {"orders", {"FHW", "WFH"}},
                              {"text_tokens", 3},
                              {"block_q", 8},
                              {"block_k", 8}},
                             2, 27);
    all["reordered"].tensors["block_mask"] = mask(2, 4, 4);
    all["disc"] =
        draft({{"type", "disc"}, {"grid", {4, 5}}, {"radius", 2}, {"text_tokens", 2}}, 1, 22);
    return all;
}

AttentionCase read(const Draft& d) {
    const auto bytes = d.bytes();
    return read_attention_case(Weights::parse(bytes, "x.safetensors"));
}

std::string refusal(const Draft& d) {
    try {
        read(d);
    } catch (const Error& error) {
        return error.what();
    }
    return "accepted";
}

TEST(AttentionCase, EveryPatternEqualsTheReference) {
    vk::Stream stream(device());
    for (auto [name, d] : drafts()) {
        SCOPED_TRACE(name);
        AttentionCase c = read(d);
        EXPECT_EQ(c.pattern_type, name);
        const auto n = [](int64_t extent) { return static_cast<uint32_t>(extent); };
        const auto expected =
            reference::attention(c.q.values, c.k.values, c.v.values, c.pattern,
                                 {.heads = n(c.q.shape[1]),
                                  .kv_heads = n(c.k.shape[1]),
                                  .q_len = n(c.q.shape[2]),
                                  .kv_len = n(c.k.shape[2]),
                                  .head_dim = 8,
                                  .extra_len = c.k_extra ? n(c.k_extra.shape[2]) : 0,
                                  .scale = c.scale},
                                 c.k_extra.values, c.v_extra.values, {.perturb = c.perturb.values});
        EXPECT_FALSE(run_attention_case(stream, c, DType::f32).max_err_o);
        d.tensors["o"] = {"F32", c.q.shape, expected.o};
        d.tensors["lse"] = {"F32", {1, c.q.shape[1], c.q.shape[2]}, expected.lse};
        c = read(d);
        const auto result = run_attention_case(stream, c, DType::f32);
        EXPECT_TRUE(result.ok);
        EXPECT_LE(result.max_err_o.value(), 1e-5f);
        EXPECT_LE(result.max_err_lse.value(), 1e-5f);
    }
}

TEST(AttentionCase, TolerancesAreThoseOfThePrecision) {
    vk::Stream stream(device());
    const AttentionCase good = [&] {
        Draft d = drafts()["disc"];
        const auto result = run_attention_case(stream, read(d), DType::f32);
        d.tensors["o"] = {"F32", result.o.shape, result.o.values};
        d.tensors["lse"] = {"F32", result.lse.shape, result.lse.values};
        return read(d);
    }();
    const auto ok = [&](const AttentionCase& c, DType dtype) {
        return run_attention_case(stream, c, dtype).ok;
    };
    EXPECT_TRUE(ok(good, DType::f32));
    for (const float wrong : {2e-4f, -2e-4f}) {
        AttentionCase c = good;
        c.o.values.back() += wrong;
        EXPECT_FALSE(ok(c, DType::f32));
        EXPECT_TRUE(ok(c, DType::f16));
        c.o.values.back() += 100 * wrong;
        EXPECT_FALSE(ok(c, DType::f16));
    }
    AttentionCase c = good;
    c.lse.values.front() -= 2e-3f;
    EXPECT_FALSE(ok(c, DType::f32));
    EXPECT_TRUE(ok(c, DType::f16));
    c.lse.values.front() -= 6e-3f;
    EXPECT_FALSE(ok(c, DType::f16));
    c.o.values[3] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_EQ(run_attention_case(stream, c, DType::f16).max_err_o,
              std::numeric_limits<float>::infinity());
}

// What is kept is the pattern's own test's matter; here that parameters arrive where they belong.
TEST(AttentionCase, ParametersReachThePattern) {
    const auto all = drafts();
    EXPECT_EQ(read(all.at("neighborhood")).pattern.key(),
              Pattern(neighborhood({.shape = {4, 6}}, {.window = {3, 2},
                                                       .stride = {1, 2},
                                                       .dilation = {1, 3},
                                                       .causal = {true, false}}))
                  .key());
    const Pattern sparse = read(all.at("block_sparse")).pattern;  // mask 1 0 / 1 1 / 0 1
    EXPECT_TRUE(sparse.keeps(7, 15));
    EXPECT_FALSE(sparse.keeps(7, 16));
    EXPECT_FALSE(sparse.keeps(16, 15));
    EXPECT_TRUE(sparse.keeps(20, 20));
    const Pattern reordered = read(all.at("reordered")).pattern;
    // Row 0 of head 0 is 1 0 1 1; slot 8 of FHW holds token 8.
    EXPECT_TRUE(reordered.head(0).keeps(0, 7));
    EXPECT_FALSE(reordered.head(0).keeps(0, 8));
    // Row 0 of head 1 is 0 1 1 0; slot 24 of WFH, 21 of the grid, is w 3, f 1, h 0: token 3 + 15.
    EXPECT_TRUE(reordered.head(1).keeps(0, 9));
    EXPECT_FALSE(reordered.head(1).keeps(0, 18));
    const Pattern disc = read(all.at("disc")).pattern;
    EXPECT_TRUE(disc.keeps(0, 6));
    EXPECT_FALSE(disc.keeps(0, 2));
    EXPECT_TRUE(disc.keeps(0, 20));
}

TEST(AttentionCase, TheRadialMaskIsComparedWithTheFiles) {
    Draft d = drafts()["radial"];
    const Pattern pattern = read(d).pattern;
    Stored mask{"U8", {1, 5, 5}, {}};
    for (uint32_t i = 0; i < 25; ++i) mask.values.push_back(pattern.keeps(i / 5 * 8, i % 5 * 8));
    d.tensors["block_mask"] = mask;
    EXPECT_EQ(read(d).wrong_blocks, 0u);
    d.tensors["block_mask"].values[7] = 1 - mask.values[7];
    d.tensors["block_mask"].values[13] = 1 - mask.values[13];
    const AttentionCase c = read(d);
    EXPECT_EQ(c.wrong_blocks, 2u);
    vk::Stream stream(device());
    EXPECT_FALSE(run_attention_case(stream, c, DType::f32).ok);
}

TEST(AttentionCase, SaysWhatIsWrong) {
    const auto refused = [](const char* pattern, const std::function<void(Draft&)>& damage) {
        Draft d = drafts()[pattern];
        damage(d);
        return refusal(d);
    };
    const auto spec = [&](const char* pattern, const char* pointer, json value) {
        return refused(pattern, [&](Draft& d) { d.spec[json::json_pointer(pointer)] = value; });
    };
    const auto stored = [&](const char* pattern, const char* name, Stored value) {
        return refused(pattern, [&](Draft& d) { d.tensors[name] = std::move(value); });
    };

    EXPECT_THAT(refused("dense", [](Draft& d) { d.spec = nullptr; }), HasSubstr("lacks \"spec\""));
    EXPECT_THAT(refused("dense",
                        [](Draft& d) {
                            d.spec = nullptr;
                            d.metadata["spec"] = "{\"pattern\": ";
                        }),
                HasSubstr("spec is no JSON"));
    EXPECT_THAT(refused("dense",
                        [](Draft& d) {
                            d.spec = nullptr;
                            d.metadata["spec"] = R"({"scale": 1e999})";
                        }),
                HasSubstr("spec is no JSON"));
    EXPECT_THAT(refused("dense",
                        [](Draft& d) {
                            d.spec = nullptr;
                            d.metadata["spec"] = "{\"pattern\": " + std::string(1000000, '[');
                        }),
                HasSubstr("nested deeper than 8"));
    EXPECT_THAT(spec("dense", "", json::array({1})), HasSubstr("an object expected, found [1]"));
    EXPECT_THAT(spec("dense", "", json::object()), HasSubstr("spec lacks \"pattern\""));
    EXPECT_THAT(spec("dense", "/pattern", "dense"), HasSubstr("object expected, found \"dense\""));
    EXPECT_THAT(spec("dense", "/pattern", json::object()), HasSubstr("lacks \"type\""));
    EXPECT_THAT(spec("dense", "/pattern/type", 3), HasSubstr("a string expected, found 3"));
    EXPECT_THAT(spec("dense", "/pattern/type", "spiral"),
                HasSubstr("\"spiral\" found, expected one of block_sparse, dense, disc, "
                          "neighborhood, radial, reordered"));
    EXPECT_THAT(spec("dense", "/scale", "big"), HasSubstr("spec.scale: a number expected"));
    EXPECT_THAT(spec("dense", "/scale", 1e300), HasSubstr("found 1e+300"));
    EXPECT_THAT(spec("dense", "/scale", 0), HasSubstr("must not be 0"));
    EXPECT_THAT(spec("dense", "/scael", 1),
                HasSubstr("\"scael\" found, expected pattern, perturb, scale"));
    EXPECT_THAT(spec("neighborhood", "/pattern/strides", {1, 1}),
                HasSubstr("\"strides\" found, expected causal, dilation, grid, stride, type"));
    EXPECT_THAT(spec("neighborhood", "/perturb", 1), HasSubstr("a list expected, found 1"));
    EXPECT_THAT(spec("neighborhood", "/perturb", {1}), HasSubstr("shape (2) expected, found (1)"));
    EXPECT_THAT(spec("neighborhood", "/perturb/1", nullptr), HasSubstr("found null"));
    EXPECT_THAT(spec("dense", "/perturb", {0, 1}), HasSubstr("found 9 and 6"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid", {4, 7}), HasSubstr("found 24 queries"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid", {4, 6, 1, 1}), HasSubstr("1 to 3 axes"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid", json::array()), HasSubstr("1 to 3 axes"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid", {2147483647, 2147483647, 2147483647}),
                HasSubstr("4294967296 tokens"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid/0", -4), HasSubstr("found -4"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid/0", 4.5), HasSubstr("found 4.5"));
    EXPECT_THAT(spec("neighborhood", "/pattern/grid/0", 4294967300u),
                HasSubstr("found 4294967300"));
    EXPECT_THAT(spec("neighborhood", "/pattern/window", {5, 2}), HasSubstr("axis length 4"));
    EXPECT_THAT(spec("neighborhood", "/pattern/window", {3}), HasSubstr("one value per axis"));
    EXPECT_THAT(spec("neighborhood", "/pattern/causal/0", 1), HasSubstr("true or false"));
    EXPECT_THAT(spec("radial", "/pattern/tokens", 41), HasSubstr("41 tokens, found 40 queries"));
    EXPECT_THAT(spec("radial", "/pattern/frames", 5), HasSubstr("found 40"));
    EXPECT_THAT(spec("radial", "/pattern/block", 0), HasSubstr("at least 1"));
    EXPECT_THAT(stored("radial", "block_mask", mask(1, 4, 5)), HasSubstr("(1, 5, 5) expected"));
    EXPECT_THAT(refused("block_sparse", [](Draft& d) { d.tensors.erase("block_mask"); }),
                HasSubstr("block_mask"));
    EXPECT_THAT(stored("block_sparse", "block_mask", mask(3, 3, 2)), HasSubstr("1 or 2 heads"));
    EXPECT_THAT(stored("block_sparse", "block_mask", mask(1, 3, 3)),
                HasSubstr("(1, 3, 2) expected, found (1, 3, 3)"));
    EXPECT_THAT(stored("block_sparse", "block_mask", {"U8", {1, 3, 2}, {1, 1, 2}}),
                HasSubstr("zeros and ones expected, found 2"));
    EXPECT_THAT(stored("block_sparse", "block_mask", {"F32", {1, 3, 2}, {}}),
                HasSubstr("U8 expected, found F32"));
    EXPECT_THAT(spec("block_sparse", "/pattern/block_q", 0), HasSubstr("found 0×16"));
    EXPECT_THAT(spec("reordered", "/pattern/orders/0", "FHH"), HasSubstr("\"FHH\""));
    EXPECT_THAT(spec("reordered", "/pattern/orders", {"FHW"}), HasSubstr("2, found 1"));
    EXPECT_THAT(spec("reordered", "/pattern/text_tokens", 4), HasSubstr("found 27 queries"));
    EXPECT_THAT(spec("disc", "/pattern/radius", -1), HasSubstr("radius must be above 0"));
    EXPECT_THAT(spec("disc", "/pattern/grid", {20}), HasSubstr("2 to 2 axes"));

    for (const char* name : {"q", "k", "v"})
        EXPECT_THAT(refused("disc", [&](Draft& d) { d.tensors.erase(name); }),
                    HasSubstr(std::string(name)));
    EXPECT_THAT(refused("dense", [](Draft& d) { d.tensors.erase("v_extra"); }),
                HasSubstr("go together"));
    EXPECT_THAT(stored("disc", "q", {"I64", {1, 1, 22, 8}, {}}),
                HasSubstr("F16 or F32 or BF16 expected, found I64"));
    EXPECT_THAT(stored("disc", "q", values("F16", {1, 22, 8}, 1)), HasSubstr("found (1, 22, 8)"));
    EXPECT_THAT(stored("disc", "k", values("F16", {1, 1, 22, 0}, 1)), HasSubstr("(1, 1, 22, 0)"));
    EXPECT_THAT(stored("disc", "k", values("F16", {2, 1, 22, 8}, 1)), HasSubstr("batch 1"));
    EXPECT_THAT(stored("dense", "k", values("F16", {1, 4, 9, 8}, 1)), HasSubstr("divide 2"));
    EXPECT_THAT(stored("disc", "v", values("F16", {1, 1, 21, 8}, 1)), HasSubstr("v: shape"));
    EXPECT_THAT(stored("dense", "v_extra", values("F16", {1, 1, 4, 8}, 1)),
                HasSubstr("v_extra: shape (1, 1, 3, 8) expected"));
    EXPECT_THAT(stored("disc", "o", values("F32", {1, 1, 22, 16}, 1)), HasSubstr("o: shape"));
    EXPECT_THAT(stored("disc", "lse", values("F32", {1, 22}, 1)), HasSubstr("lse: 3 axes"));
    EXPECT_THAT(stored("disc", "lse", {"U8", {1, 1, 22}, {}}),
                HasSubstr("F32 or F16 expected, found U8"));
}

std::vector<json> strange_values() {
    return {nullptr,
            true,
            "x",
            "",
            -1,
            0,
            1,
            2147483647,
            4294967295u,
            18446744073709551615u,
            1e30,
            -1e308,
            0.5,
            json::array(),
            json::object(),
            json::array({json::array()}),
            json::array({1, 2, 3, 4, 5})};
}

// Every node of every specification replaced by everything strange, and every tensor by others: an
// Error or a result, of a device too.
TEST(AttentionCase, DamagedFilesEndInAnErrorOrAResult) {
    vk::Stream stream(device());
    size_t refused = 0, accepted = 0;
    const auto try_it = [&](const Draft& d) {
        try {
            const AttentionCase c = read(d);
            run_attention_case(stream, c, DType::f32);
            ++accepted;
        } catch (const Error& error) {
            EXPECT_THAT(error.what(), HasSubstr("] "));
            ++refused;
        }
    };
    for (const auto& [name, good] : drafts()) {
        SCOPED_TRACE(name);
        const json flat = good.spec.flatten();
        for (const auto& item : flat.items())
            for (auto pointer = json::json_pointer(item.key()); !pointer.empty();
                 pointer = pointer.parent_pointer()) {
                Draft d = good;
                for (const json& value : strange_values()) {
                    d.spec[pointer] = value;
                    try_it(d);
                }
                d = good;
                auto& parent = d.spec[pointer.parent_pointer()];
                if (parent.is_object()) parent.erase(pointer.back());
                try_it(d);
            }
        for (const auto& [tensor, stored] : good.tensors) {
            Draft d = good;
            d.tensors.erase(tensor);
            try_it(d);
            for (const char* type : {"F16", "F32", "BF16", "U8", "I64", "BOOL"}) {
                d = good;
                d.tensors[tensor].type = type;
                try_it(d);
            }
            for (size_t axis = 0; axis < stored.shape.size(); ++axis)
                for (const int64_t extent : {0, 1, 3, 12}) {
                    d = good;
                    d.tensors[tensor].shape[axis] = extent;
                    try_it(d);
                }
            d = good;
            d.tensors[tensor].shape.pop_back();
            try_it(d);
        }
    }
    EXPECT_GT(refused, 500u);
    EXPECT_GT(accepted, 20u);
}

}  // namespace
}  // namespace fovea
