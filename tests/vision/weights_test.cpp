#include "vision/weights.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <string_view>

#include "backend/error.h"
#include "backend/half.h"
#include "tests/vision/temporary_folder.h"
#include "vision/file.h"

namespace fovea {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Length, header and data as a file would have them.
std::vector<std::byte> file_of(std::string_view header, std::string_view data = "") {
    std::vector<std::byte> file(8 + header.size() + data.size());
    const uint64_t length = header.size();
    std::memcpy(file.data(), &length, 8);
    std::memcpy(file.data() + 8, header.data(), header.size());
    std::memcpy(file.data() + 8 + header.size(), data.data(), data.size());
    return file;
}

std::string refusal(std::span<const std::byte> file) {
    try {
        Weights::parse(file, "x.safetensors");
    } catch (const Error& error) {
        EXPECT_THAT(error.what(), HasSubstr("x.safetensors"));
        return error.what();
    }
    return "accepted";
}

std::string refusal(std::string_view header, std::string_view data = "") {
    return refusal(file_of(header, data));
}

TEST(Weights, reads_every_floating_and_byte_type) {
    // An odd start: nothing after the first tensor is aligned.
    const auto file = file_of(R"({"u8":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "f32":{"dtype":"F32","shape":[1],"data_offsets":[1,5]},
        "f16":{"dtype":"F16","shape":[2],"data_offsets":[5,9]},
        "bf16":{"dtype":"BF16","shape":[1,1],"data_offsets":[9,11]},
        "i8":{"dtype":"I8","shape":[],"data_offsets":[11,12]}})",
                              std::string_view("\xff"
                                               "\0\0\x20\xc1"
                                               "\0\x3e\1\0"
                                               "\x49\x40"
                                               "\x80",
                                               12));
    const Weights weights = Weights::parse(file, "memory");
    EXPECT_THAT(weights.floats("u8", {1}), ElementsAre(255.0f));
    EXPECT_THAT(weights.floats("f32", {1}), ElementsAre(-10.0f));
    EXPECT_THAT(weights.floats("f16", {2}), ElementsAre(1.5f, 0x1p-24f));
    EXPECT_THAT(weights.floats("bf16", {1, 1}), ElementsAre(3.140625f));
    EXPECT_THAT(weights.floats("i8", {}), ElementsAre(-128.0f));
    EXPECT_THAT(weights.names(), ElementsAre("bf16", "f16", "f32", "i8", "u8"));
}

TEST(Weights, integers_and_truth_values_are_readable_as_bytes_only) {
    const auto file = file_of(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
        "b":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]},
        "c":{"dtype":"I32","shape":[0,7],"data_offsets":[11,11]}})",
                              std::string_view("\7\0\0\0\0\0\0\0\1\0\1", 11));
    const Weights weights = Weights::parse(file, "memory");
    EXPECT_EQ(weights.info("a").type, StoredType::I64);
    EXPECT_EQ(weights.info("a").bytes[0], std::byte{7});
    EXPECT_EQ(weights.info("b").bytes.size(), 3u);
    EXPECT_THAT(weights.info("c").shape, ElementsAre(0, 7));
    EXPECT_THROW(weights.floats("a", {1}), Error);
}

TEST(Weights, shape_errors_name_file_tensor_and_both_shapes) {
    const auto file =
        file_of(R"({"w":{"dtype":"U8","shape":[2,3],"data_offsets":[0,6]}})", "abcdef");
    const Weights weights = Weights::parse(file, "model.safetensors");
    EXPECT_EQ(weights.floats("w", {2, -1}).size(), 6u);
    try {
        weights.floats("w", {-1, 4});
        FAIL() << "wrong shape accepted";
    } catch (const Error& error) {
        EXPECT_STREQ(
            error.what(),
            "[weights] model.safetensors: tensor w: expected shape (any, 4), found (2, 3)");
    }
    EXPECT_THROW(weights.floats("w", {2, 3, 1}), Error);
    EXPECT_THROW(weights.floats("w", {6}), Error);
    EXPECT_THROW(weights.info("v"), Error);
    EXPECT_FALSE(weights.contains("v"));
    EXPECT_TRUE(weights.contains("w"));
}

TEST(Weights, metadata_is_kept) {
    const auto file = file_of(R"({"__metadata__":{"config":"{\"type\": \"dit\"}","é":""}}   )");
    const Weights weights = Weights::parse(file, "memory");
    EXPECT_EQ(weights.metadata().at("config"), R"({"type": "dit"})");
    EXPECT_EQ(weights.metadata().at("é"), "");
    EXPECT_TRUE(weights.names().empty());
}

TEST(Weights, refuses_a_wrong_length_or_no_json) {
    EXPECT_THAT(refusal(std::span<const std::byte>()), HasSubstr("only 0 bytes"));
    EXPECT_THAT(refusal(std::vector<std::byte>(7)), HasSubstr("only 7 bytes"));
    EXPECT_THAT(refusal(std::vector<std::byte>(8)), HasSubstr("beginning with {"));
    EXPECT_THAT(refusal(std::vector<std::byte>(20, std::byte{0xff})),
                HasSubstr("at most 100000000"));
    auto cut = file_of("{}");
    cut[0] = std::byte{3};
    EXPECT_THAT(refusal(cut), HasSubstr("expected a header of 3 bytes, found only 2"));
    EXPECT_THAT(refusal(" {}"), HasSubstr("beginning with {"));
    EXPECT_THAT(refusal("{"), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal("{} {}"), HasSubstr("not valid JSON"));
    EXPECT_THAT(refusal("{\"\xff\":{}}"), HasSubstr("not valid JSON"));
    EXPECT_EQ(refusal("{}"), "accepted");
}

TEST(Weights, refuses_json_that_is_not_the_format) {
    const std::string deep = R"({"a":)" + std::string(1'000'000, '[');
    EXPECT_THAT(refusal(deep), HasSubstr("a list where the format has none"));
    EXPECT_THAT(refusal(R"({"a":{"a":{}}})"), HasSubstr("unknown field"));
    EXPECT_THAT(refusal(R"({"a":{"shape":[[1]]}})"), HasSubstr("a list where"));
    EXPECT_THAT(refusal(R"({"a":{"shape":{}}})"), HasSubstr("an object where"));
    EXPECT_THAT(refusal(R"({"a":3})"), HasSubstr("a number where"));
    EXPECT_THAT(refusal(R"({"a":null})"), HasSubstr("null"));
    EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})"), HasSubstr("a number where"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","shape":[]}})"), HasSubstr("no data_offsets"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,0]}})"), HasSubstr("no shape"));
    EXPECT_THAT(refusal(R"({"a":{"shape":[],"data_offsets":[0,0]}})"), HasSubstr("no dtype"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"F8_E4M3"}})"), HasSubstr("F8_E4M3"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[],"data_offsets":[0]}})"),
                HasSubstr("two data_offsets"));
    EXPECT_THAT(refusal(R"({"a":{"data_offsets":[0,1,2]}})"), HasSubstr("more than two"));
}

TEST(Weights, refuses_duplicates_at_every_level) {
    const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
    EXPECT_EQ(refusal("{" + a + "}"), "accepted");
    EXPECT_THAT(refusal("{" + a + "," + a + "}"), HasSubstr("a appears twice"));
    EXPECT_THAT(refusal(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("appears twice"));
    EXPECT_THAT(refusal(R"({"__metadata__":{"k":"1","k":"2"}})"), HasSubstr("k appears twice"));
    EXPECT_THAT(refusal(R"({"a":{"shape":[1],"shape":[2]}})"), HasSubstr("two fields shape"));
    EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","dtype":"U8"}})"), HasSubstr("two fields dtype"));
}

TEST(Weights, refuses_shapes_that_do_not_fit_their_bytes) {
    const auto one = [](std::string_view type, std::string_view shape, std::string_view offsets) {
        return refusal(fmt::format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", type,
                                   shape, offsets),
                       "12345678");
    };
    EXPECT_EQ(one("F32", "[2]", "[0,8]"), "accepted");
    EXPECT_THAT(one("F32", "[3]", "[0,8]"), HasSubstr("expected 12 bytes for F32 (3), found 8"));
    EXPECT_THAT(one("F32", "[-2]", "[0,8]"), HasSubstr("negative"));
    EXPECT_THAT(one("F32", "[2.0]", "[0,8]"), HasSubstr("64-bit integer"));
    // 2^32 * 2^32 * 4 wraps to 0; 2^62 * 4 as well.
    EXPECT_THAT(one("F32", "[4294967296,4294967296]", "[0,0]"), HasSubstr("over 2^64"));
    EXPECT_THAT(one("F32", "[4611686018427387904]", "[0,0]"), HasSubstr("over 2^64"));
    EXPECT_THAT(one("F32", "[18446744073709551615]", "[0,0]"), HasSubstr("above 2^63"));
    EXPECT_THAT(one("F32", "[99999999999999999999999]", "[0,0]"), HasSubstr("64-bit"));
    EXPECT_THAT(one("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), HasSubstr("more than 8 dimensions"));
}

TEST(Weights, refuses_ranges_that_do_not_tile_the_data) {
    const auto two = [](std::string_view a, std::string_view b) {
        return refusal(fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},
                                       "b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                                   a, b),
                       "12345678");
    };
    EXPECT_EQ(two("[0,4]", "[4,8]"), "accepted");
    EXPECT_EQ(two("[4,8]", "[0,4]"), "accepted");
    EXPECT_THAT(two("[0,4]", "[5,9]"), HasSubstr("within the 8"));
    EXPECT_THAT(two("[0,4]", "[8,4]"), HasSubstr("found 8 to 4"));
    EXPECT_THAT(two("[0,4]", "[3,7]"), HasSubstr("overlap"));
    EXPECT_THAT(two("[0,4]", "[0,4]"), HasSubstr("overlap"));
    const auto one = [](std::string_view offsets) {
        return refusal(
            fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})", offsets),
            "123456");
    };
    EXPECT_THAT(one("[1,5]"), HasSubstr("hole"));
    EXPECT_THAT(one("[0,4]"), HasSubstr("no tensor uses"));
    EXPECT_THAT(refusal("{}", "x"), HasSubstr("no tensor uses"));
}

TEST(Weights, messages_carry_no_control_characters_of_the_file) {
    const std::string message = refusal(R"({"\u001b[31mred\n":{"dtype":"U8"}})");
    EXPECT_EQ(message.find_first_of("\x1b\n"), std::string::npos) << message;
}

TEST(Weights, written_files_come_back_from_the_disk) {
    const TemporaryFolder folder;
    const std::vector<NamedTensor> tensors = {
        {.name = "bytes", .type = StoredType::U8, .shape = {3}, .values = {0, 7, 255}},
        {.name = "halves", .type = StoredType::F16, .shape = {1, 2}, .values = {1.0f / 3, 1e-7f}},
        {.name = "floats", .type = StoredType::F32, .shape = {}, .values = {1e-30f}},
        {.name = "none", .type = StoredType::F32, .shape = {2, 0}, .values = {}}};
    write_safetensors(folder / "a", tensors, {{"config", "{}"}});
    Weights opened = Weights::open(folder / "a");
    const Weights weights = std::move(opened);
    EXPECT_THAT(weights.floats("bytes", {3}), ElementsAre(0.0f, 7.0f, 255.0f));
    EXPECT_THAT(weights.floats("halves", {-1, 2}),
                ElementsAre(half_to_float(0x3555), half_to_float(0x0002)));
    EXPECT_THAT(weights.floats("floats", {}), ElementsAre(1e-30f));
    EXPECT_TRUE(weights.floats("none", {2, 0}).empty());
    EXPECT_EQ(weights.metadata().at("config"), "{}");

    const std::vector<std::byte> file = read_file(folder / "a", 10000);
    uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data(), 8);
    EXPECT_EQ(header_bytes % 8, 0u);
    for (const std::string& name : weights.names()) {  // the mapping begins at a page
        const TensorInfo& info = weights.info(name);
        EXPECT_EQ(reinterpret_cast<uintptr_t>(info.bytes.data()) % byte_size(info.type), 0u)
            << name;
    }

    const std::vector<NamedTensor> other_order(tensors.rbegin(), tensors.rend());
    write_safetensors(folder / "b", other_order, {{"config", "{}"}});
    EXPECT_EQ(read_file(folder / "a", 10000), read_file(folder / "b", 10000));
    EXPECT_EQ(folder.file_count(), 2u);
}

TEST(Weights, writing_refuses_what_cannot_be_stored) {
    const TemporaryFolder folder;
    const auto write = [&](NamedTensor tensor) {
        write_safetensors(folder / "a", std::vector{std::move(tensor)});
    };
    EXPECT_THROW(write({.name = "a", .shape = {2}, .values = {1}}), Error);
    EXPECT_THROW(write({.name = "a", .shape = {-1}, .values = {1}}), Error);
    EXPECT_THROW(write({.name = "a", .type = StoredType::U8, .shape = {}, .values = {0.5f}}),
                 Error);
    EXPECT_THROW(write({.name = "a", .type = StoredType::U8, .shape = {}, .values = {256}}), Error);
    EXPECT_THROW(write({.name = "a", .type = StoredType::I64, .shape = {}, .values = {1}}), Error);
    EXPECT_THROW(write({.name = "\xff", .shape = {}, .values = {1}}), Error);
    EXPECT_THROW(write({.name = "__metadata__", .shape = {}, .values = {1}}), Error);
    const std::vector<NamedTensor> twice(2, {.name = "a", .shape = {}, .values = {1}});
    EXPECT_THROW(write_safetensors(folder / "a", twice), Error);
    EXPECT_EQ(folder.file_count(), 0u);
}

/// FOVEA_FUZZ_SEEDS names a folder to keep the files in, as the fuzz target's first inputs.
TEST(Weights, seeds_of_the_fuzz_target_are_valid_files) {
    const TemporaryFolder temporary;
    const char* kept = std::getenv("FOVEA_FUZZ_SEEDS");
    const std::filesystem::path folder = kept != nullptr ? kept : temporary.path();
    std::filesystem::create_directories(folder);
    write_safetensors(folder / "none.safetensors", {});
    write_safetensors(folder / "metadata.safetensors", {}, {{"config", R"({"width": 256})"}});
    const std::vector<NamedTensor> mixed = {
        {.name = "a.weight", .shape = {2, 1}, .values = {1, -2}},
        {.name = "a.bias", .type = StoredType::F16, .shape = {1}, .values = {0.5f}},
        {.name = "é", .type = StoredType::U8, .shape = {}, .values = {7}}};
    write_safetensors(folder / "mixed.safetensors", mixed, {{"k", "v"}});
    write_file(folder / "other_types.safetensors",
               file_of(R"({"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},
                           "b":{"dtype":"BF16","shape":[1],"data_offsets":[8,10]},
                           "c":{"dtype":"I8","shape":[0],"data_offsets":[10,10]},
                           "d":{"dtype":"I32","shape":[1],"data_offsets":[10,14]},
                           "e":{"dtype":"BOOL","shape":[1],"data_offsets":[14,15]}})",
                       "123456789012345"));
    for (const auto& entry : std::filesystem::directory_iterator(folder))
        EXPECT_NO_THROW(Weights::open(entry.path())) << entry.path();
}

TEST(Weights, opening_refuses_what_is_no_file) {
    const TemporaryFolder folder;
    EXPECT_THROW(Weights::open(folder / "none"), Error);
    EXPECT_THROW(Weights::open(folder.path()), Error);
    write_file(folder / "empty", {});
    EXPECT_THROW(Weights::open(folder / "empty"), Error);
}

}  // namespace
}  // namespace fovea
