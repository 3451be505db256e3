#include "backend/vk/stream.h"

#include <cstring>
#include <filesystem>
#include <fstream>

#include "backend/error.h"
#include "backend/vk/context.h"
#include "backend/vk/profile.h"
#include "shaders.h"
#include "tests/backend/ops_testing.h"

namespace fovea {
namespace {

using testing::device;

TEST(Stream, UploadDownloadRoundTrip) {
    vk::Stream stream(device());
    const auto values = testing::random_values(1000, 1);
    EXPECT_EQ(to_host(stream, upload(stream, values, {10, 100}, DType::f32)), values);
    const auto halves = testing::random_values(999, 2, DType::f16);
    EXPECT_EQ(to_host(stream, upload(stream, halves, {999}, DType::f16)), halves);
}

TEST(Stream, CopiesRunInTheOrderRecorded) {
    vk::Stream stream(device());
    const auto first = testing::random_values(4096, 3), second = testing::random_values(4096, 4);
    const Tensor a = upload(stream, first, {4096}, DType::f32);
    const Tensor b = upload(stream, second, {4096}, DType::f32);
    const Tensor c = empty(device(), {4096}, DType::f32);
    for (int i = 0; i < 20; ++i) {  // each overwrites what the one before reads or wrote
        stream.copy(read(a), write(c));
        stream.copy(read(c), write(b));
        stream.copy(read(b), write(a));
    }
    EXPECT_EQ(to_host(stream, c), first);
    EXPECT_EQ(to_host(stream, b), first);
}

// Two streams that have submitted nothing: the pool hands the memory of one to the other, and
// results go from one to the other.
TEST(Stream, StreamsOfADeviceRunInTheOrderRecorded) {
    vk::Stream first(device()), second(device());
    const auto values = testing::random_values(4096, 5), others = testing::random_values(4096, 6);
    const vk::Buffer::Handle* recorded = nullptr;
    {
        const Tensor freed = empty(device(), {4096}, DType::f32);
        first.fill(write(freed), 0);
        recorded = &freed.buffer()->handle();
    }
    const Tensor next = upload(second, values, {4096}, DType::f32);
    ASSERT_EQ(&next.buffer()->handle(), recorded) << "the pool has other memory: nothing is tested";
    second.submit();
    first.submit();  // the fill
    EXPECT_EQ(to_host(second, next), values);

    const Tensor a = upload(first, others, {4096}, DType::f32);
    const Tensor b = empty(device(), {4096}, DType::f32);
    second.copy(read(a), write(b));
    first.copy(read(next), write(a));  // after second has read it
    EXPECT_EQ(to_host(second, b), others);
    EXPECT_EQ(to_host(first, a), values);
}

// The copies take long beside what is recorded next, so that a wait for nothing would show.
TEST(Stream, WaitForEarlierWaitsForAllButTheNewest) {
    vk::Stream stream(device());
    const int64_t count = 1 << 22;
    const auto values = testing::random_values(count, 7);
    const Tensor a = upload(stream, values, {count}, DType::f32);
    const Tensor b = empty(device(), {count}, DType::f32);
    const auto host = device().allocate(count * 4, vk::Memory::readback, "a test");
    for (int i = 0; i < 8; ++i) stream.copy(read(i % 2 ? b : a), write(i % 2 ? a : b));
    stream.copy(read(b), {host, 0, count * 4, vk::Access::Mode::write});
    stream.wait_for_earlier();
    stream.fill(write(b), 0);
    stream.wait_for_earlier();
    EXPECT_EQ(std::memcmp(host->mapped(), values.data(), count * 4), 0);
    stream.wait_for_earlier();  // nothing is new: as wait()
    EXPECT_EQ(to_host(stream, b.slice(0, 4)), std::vector<float>(4));
}

TEST(Stream, FillWritesOnlyItsRange) {
    vk::Stream stream(device());
    const Tensor t = upload(stream, std::vector<float>(256, 1.0f), {4, 64}, DType::f32);
    stream.fill(write(t.slice(1, 2)), 0);
    const auto host = to_host(stream, t);
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(host[i], i >= 64 && i < 192 ? 0.0f : 1.0f) << i;
}

TEST(Stream, ProfileTimesEveryCopy) {
    if (device().info().limits.timestamp_period == 0)
        GTEST_SKIP() << "no timestamps on this device";
    vk::Stream stream(device());
    stream.profile(true);
    const Tensor a = upload(stream, std::vector<float>(1024, 2.0f), {1024}, DType::f32);
    const Tensor b = empty(device(), {1024}, DType::f32);
    for (int i = 0; i < 5000; ++i) stream.copy(read(a), write(b));  // more than one query pool
    stream.wait();
    EXPECT_EQ(stream.profile_events().size(), 5001u);
    EXPECT_NE(vk::profile_table(stream.profile_events()).find("copy"), std::string::npos);
}

/// Every program adds 1 to what the one before wrote; all are asked for at their dispatch.
TEST(Stream, ProgramsAreMadeWhileOthersAreRecorded) {
    for (const bool profiled : {false, true}) {
        vk::Device fresh;  // has made no program yet
        if (profiled && fresh.info().limits.timestamp_period == 0) continue;
        vk::Stream stream(fresh), other(fresh);
        stream.profile(profiled);
        constexpr int kPrograms = 24;
        constexpr uint32_t kVectors = 300;  // of four words; no multiple of most workgroups
        Tensor x = upload(stream, std::vector<int32_t>(4 * kVectors, 100), {4 * kVectors});
        for (int i = 0; i < kPrograms; ++i) {
            const auto workgroup = static_cast<uint32_t>(i + 1);
            const Tensor y = empty(fresh, {4 * kVectors}, DType::i32);
            stream.dispatch(fresh.program(shader::bandwidth, {workgroup}), {write(y), read(x)},
                            kVectors, {(kVectors + workgroup - 1) / workgroup}, "add one");
            x = y;
            if (i % 10 == 5) stream.submit();
        }
        // What is submitted and waits for its pipelines comes before another stream's.
        const Tensor copied = empty(fresh, {4 * kVectors}, DType::i32);
        other.copy(read(x), write(copied));
        std::vector<int32_t> found(4 * kVectors);
        other.download(read(copied), std::as_writable_bytes(std::span(found)));
        EXPECT_EQ(found, std::vector<int32_t>(4 * kVectors, 100 + kPrograms));
        stream.wait();
        if (profiled) {
            EXPECT_EQ(stream.profile_events().size(), size_t{1 + kPrograms});
        }
    }
}

/// SPIR-V without a function: the driver has nothing to compile.
// Not for sanitizers: llvmpipe leaks what it had made of a shader that it refuses.
TEST(StreamRefusal, APipelineThatCannotBeMadeIsTheErrorOfItsDispatch) {
    constexpr uint32_t kNothing[] = {0x07230203, 0x00010300, 0, 8, 0};
    const vk::Shader broken{"broken_shader", kNothing};
    const testing::Environment no_layers("FOVEA_VALIDATION", "");
    vk::Device fresh;
    if (fresh.impl().instance->messenger)
        GTEST_SKIP() << "the layers, switched on before by another test, refuse the shader first";
    const auto values = testing::random_values(64, 7);
    const auto expect_error = [](const auto& action) {
        try {
            action();
            FAIL() << "accepted";
        } catch (const Error& error) {
            const std::string text = error.what();
            EXPECT_NE(text.find("[an op]"), std::string::npos) << text;
            EXPECT_NE(text.find("broken_shader"), std::string::npos) << text;
        }
    };
    Tensor kept;
    {
        vk::Stream stream(fresh);
        expect_error([&] {
            kept = upload(stream, values, {64}, DType::f32);
            stream.dispatch(fresh.program(broken), {}, uint32_t{0}, {1}, "an op");
            stream.wait();
        });
        expect_error(
            [&] { stream.dispatch(fresh.program(broken), {}, uint32_t{0}, {1}, "an op"); });
        EXPECT_EQ(to_host(stream, kept), values);
        EXPECT_NO_THROW(stream.wait());
    }
    EXPECT_NO_THROW(fresh.trim()) << "a batch was not released";
}

TEST(Device, PoolReusesMemory) {
    vk::Device fresh;
    const uint64_t before = fresh.allocated();
    for (int i = 0; i < 10; ++i) empty(fresh, {1000, 1000}, DType::f32);
    EXPECT_LE(fresh.allocated() - before, 5u << 20);
    fresh.trim();
    EXPECT_EQ(fresh.allocated(), before);
}

TEST(Device, UnknownDeviceNamesTheChoices) {
    try {
        vk::Device none("no such device");
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(device().info().name), std::string::npos)
            << error.what();
    }
}

TEST(Device, TooLargeAllocationIsAClearError) {
    try {
        device().allocate(uint64_t{1} << 50, vk::Memory::device, "a test");
        FAIL() << "accepted";
    } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("a test"), std::string::npos) << error.what();
    }
}

TEST(Device, TensorOutlivesItsDevice) {
    Tensor kept;
    {
        vk::Device fresh;
        kept = empty(fresh, {16}, DType::f32);
    }
    EXPECT_EQ(kept.numel(), 16);
}

TEST(Device, ForeignOrCorruptPipelineCacheIsIgnored) {
    namespace fs = std::filesystem;
    const fs::path folder = fs::path(::testing::TempDir()) / "fovea_cache_test";
    fs::remove_all(folder);
    fs::create_directories(folder / "fovea");
    const char* old = std::getenv("XDG_CACHE_HOME");
    const std::string saved = old ? old : "";
    setenv("XDG_CACHE_HOME", folder.c_str(), 1);
    { vk::Device writes_cache; }
    for (const auto& entry : fs::directory_iterator(folder / "fovea"))
        std::ofstream(entry.path(), std::ios::binary) << "not a cache at all";
    EXPECT_NO_THROW(vk::Device reads_corrupt_cache);
    if (old)
        setenv("XDG_CACHE_HOME", saved.c_str(), 1);
    else
        unsetenv("XDG_CACHE_HOME");
    fs::remove_all(folder);
}

}  // namespace
}  // namespace fovea
