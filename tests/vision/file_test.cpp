#include "vision/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string_view>

#include "backend/error.h"
#include "tests/vision/temporary_folder.h"

namespace fovea {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> to_bytes(std::string_view text) {
    std::vector<std::byte> bytes(text.size());
    std::memcpy(bytes.data(), text.data(), text.size());
    return bytes;
}

template <typename Function>
std::string message_of(Function function) {
    try {
        function();
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(File, what_is_written_is_read_and_replaces_the_old) {
    const TemporaryFolder folder;
    write_file(folder / "a", to_bytes("first, longer"));
    write_file(folder / "a", to_bytes("second"));
    EXPECT_EQ(read_file(folder / "a", 100), to_bytes("second"));
    write_file(folder / "empty", {});
    EXPECT_TRUE(read_file(folder / "empty", 0).empty());
    EXPECT_EQ(folder.file_count(), 2u);
}

TEST(File, a_new_file_follows_the_umask) {
    const TemporaryFolder folder;
    const mode_t before = ::umask(027);
    write_file(folder / "a", to_bytes("x"));
    ::umask(before);
    struct stat status {};
    ASSERT_EQ(::stat((folder / "a").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0640u);
}

TEST(File, reading_refuses_what_is_missing_too_large_or_no_file) {
    const TemporaryFolder folder;
    EXPECT_THAT(message_of([&] { read_file(folder / "none", 10); }), HasSubstr("No such file"));
    EXPECT_THAT(message_of([&] { read_file(folder.path(), 10); }), HasSubstr("regular file"));
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    EXPECT_THAT(message_of([&] { read_file(folder / "pipe", 10); }), HasSubstr("regular file"));
    write_file(folder / "a", to_bytes("12345"));
    EXPECT_THAT(message_of([&] { read_file(folder / "a", 4); }), HasSubstr("at most 4 bytes"));
}

TEST(File, a_failed_write_keeps_the_old_file_and_leaves_nothing_behind) {
    const TemporaryFolder folder;
    write_file(folder / "a", to_bytes("old"));
    // A limit on file size stands in for a full disk.
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    const rlimit small{.rlim_cur = 1000, .rlim_max = before.rlim_max};
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
    const std::string message =
        message_of([&] { write_file(folder / "a", std::vector<std::byte>(5000)); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    ::signal(SIGXFSZ, handler);

    EXPECT_THAT(message, HasSubstr("File too large"));
    EXPECT_EQ(read_file(folder / "a", 100), to_bytes("old"));
    EXPECT_EQ(folder.file_count(), 1u);
}

TEST(File, a_killed_write_keeps_the_old_file_or_finishes_the_new) {
    const TemporaryFolder folder;
    const std::vector<std::byte> next(size_t{1} << 24, std::byte{7});
    for (int delay = 0; delay < 10; ++delay) {  // milliseconds
        write_file(folder / "a", to_bytes("old"));
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            write_file(folder / "a", next);
            ::_exit(0);
        }
        ::usleep(static_cast<useconds_t>(delay * 1000));
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        const std::vector<std::byte> found = read_file(folder / "a", next.size());
        EXPECT_TRUE(found == to_bytes("old") || found == next) << found.size();
    }
}

TEST(File, writing_over_a_folder_or_into_none_fails_cleanly) {
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder / "sub");
    EXPECT_THAT(message_of([&] { write_file(folder / "sub", to_bytes("x")); }),
                HasSubstr("directory"));
    EXPECT_THAT(message_of([&] { write_file(folder / "none/a", to_bytes("x")); }),
                HasSubstr("No such file"));
    EXPECT_EQ(folder.file_count(), 1u);
}

TEST(File, unwritable_is_an_error_of_its_own) {
    const TemporaryFolder folder;
    EXPECT_THROW(write_file(folder / "none/a", to_bytes("x")), WriteError);
    EXPECT_THROW(rename_file(folder / "a", folder / "b"), WriteError);
}

// Examples of FIPS 180-2.
TEST(File, sha256_is_the_standards) {
    const TemporaryFolder folder;
    write_file(folder / "abc", to_bytes("abc"));
    const std::string abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    EXPECT_EQ(sha256("abc"), abc);
    EXPECT_EQ(sha256_of_file(folder / "abc"), abc);
    EXPECT_EQ(sha256(std::string(1'000'000, 'a')),
              "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    EXPECT_THROW(sha256_of_file(folder / "none"), Error);
}

TEST(File, kind_names_what_was_found) {
    EXPECT_EQ(file_kind({}), "an empty file");
    EXPECT_EQ(file_kind(to_bytes("\x89PNG\r\n")), "a PNG picture");
    EXPECT_EQ(file_kind(to_bytes("RIFF\1\1\1\1WEBPVP8 ")), "a WebP picture");
    EXPECT_EQ(file_kind(to_bytes("%PDF-1.7")), "a PDF document");
    EXPECT_EQ(file_kind(to_bytes("12345678{\"__metadata__\"")), "a safetensors file");
    EXPECT_EQ(file_kind(to_bytes("<svg xmlns=")), "an SVG drawing");
    EXPECT_EQ(file_kind(to_bytes("hello\n")), "text");
    EXPECT_EQ(file_kind(to_bytes("\1\2\3")), "unknown data");
}

}  // namespace
}  // namespace fovea
