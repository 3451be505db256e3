#include "vision/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "backend/error.h"

namespace fovea {

namespace fs = std::filesystem;

namespace {

class Descriptor {
  public:
    explicit Descriptor(int number) : number_(number) {}
    ~Descriptor() {
        if (number_ >= 0) ::close(number_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    int get() const { return number_; }
    /// Network file systems report a failed write only here.
    bool close() { return ::close(std::exchange(number_, -1)) == 0; }

  private:
    int number_;
};

fs::path folder_of(const fs::path& path) {
    return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

/// A name beside that of a file to be; removes the file unless it was renamed away.
struct Temporary {
    fs::path path;
    bool renamed = false;

    explicit Temporary(const fs::path& beside) {
        static std::atomic<unsigned> counter = 0;
        path = folder_of(beside) / fmt::format(".fovea-{}-{}.part", ::getpid(), counter++);
    }
    ~Temporary() {
        if (!renamed) ::unlink(path.c_str());
    }
    Temporary(const Temporary&) = delete;
    Temporary& operator=(const Temporary&) = delete;
};

// Only inside of fail(): the arguments of require() are evaluated before its condition is known.
std::string reason() {
    return std::strerror(errno);
}

// A name that cannot be taken is no fault of the disk.
[[noreturn]] void fail_to_write(const fs::path& path) {
    for (const int of_the_name : {EISDIR, ENOTDIR, EEXIST, ENOTEMPTY, ENAMETOOLONG, ELOOP})
        if (errno == of_the_name) fail("[file] cannot write {}: {}", path.string(), reason());
    throw WriteError(fmt::format("[file] cannot write {}: {}", path.string(), reason()));
}

// The descriptor of the temporary file for `path`.
int make(Temporary& temporary, const fs::path& path) {
    const int file = ::open(temporary.path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0) return file;
    temporary.renamed = true;  // nothing of ours to remove
    throw WriteError(
        fmt::format("[file] cannot write in the folder of {}: {}", path.string(), reason()));
}

}  // namespace

std::vector<std::byte> read_file(const fs::path& path, size_t max_bytes) {
    // O_NONBLOCK: a named pipe is refused below instead of waiting for its writer.
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.get() < 0) fail("[file] cannot open {}: {}", path.string(), reason());
    struct stat status {};
    if (::fstat(file.get(), &status) != 0)
        fail("[file] cannot read {}: {}", path.string(), reason());
    require(S_ISREG(status.st_mode),
            "[file] expected a regular file, found {} to be something else", path.string());
    const auto size = static_cast<size_t>(status.st_size);
    require(size <= max_bytes, "[file] expected at most {} bytes, found {} bytes in {}", max_bytes,
            size, path.string());

    std::vector<std::byte> bytes(size);
    size_t done = 0;
    while (done < size) {
        const ssize_t count = ::read(file.get(), bytes.data() + done, size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail("[file] cannot read {}: {}", path.string(), reason());
        require(count > 0, "[file] {} became shorter while it was read", path.string());
        done += static_cast<size_t>(count);
    }
    return bytes;
}

void require_writable(const fs::path& path) {
    Temporary temporary(path);
    const Descriptor file(make(temporary, path));
}

void write_file(const fs::path& path, std::span<const std::byte> bytes) {
    Temporary temporary(path);
    Descriptor file(make(temporary, path));
    while (!bytes.empty()) {
        const ssize_t count = ::write(file.get(), bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) fail_to_write(path);
        bytes = bytes.subspan(static_cast<size_t>(count));
    }
    if (::fsync(file.get()) != 0 || !file.close()) fail_to_write(path);
    rename_file(temporary.path, path);
    temporary.renamed = true;
}

void rename_file(const fs::path& from, const fs::path& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) fail_to_write(to);
    // Makes the new name itself survive a power cut; not every file system can.
    const Descriptor directory(::open(folder_of(to).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.get() >= 0) ::fsync(directory.get());
}

std::string file_kind(std::span<const std::byte> bytes) {
    if (bytes.empty()) return "an empty file";
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const auto at = [&](size_t offset, std::string_view magic) {
        return text.size() >= offset && text.substr(offset).starts_with(magic);
    };
    if (at(0, "\x89PNG")) return "a PNG picture";
    if (at(0, "\xff\xd8\xff")) return "a JPEG picture";
    if (at(0, "GIF8")) return "a GIF picture";
    if (at(0, "RIFF") && at(8, "WEBP")) return "a WebP picture";
    if (at(0, "BM") && at(6, std::string_view("\0\0\0\0", 4))) return "a BMP picture";
    if (at(0, std::string_view("II*\0", 4)) || at(0, std::string_view("MM\0*", 4)))
        return "a TIFF picture";
    if (at(4, "ftypavif")) return "an AVIF picture";
    if (at(4, "ftyphei") || at(4, "ftypmif1")) return "a HEIC picture";
    if (at(4, "ftyp")) return "an MP4 video";
    if (at(0, "\x1a\x45\xdf\xa3")) return "a Matroska or WebM video";
    if (at(0, "%PDF")) return "a PDF document";
    if (at(0, "PK\x03\x04")) return "a ZIP archive";
    if (at(0, "\x1f\x8b")) return "a gzip archive";
    if (at(0,
           "\x7f"
           "ELF"))
        return "a program";
    if (at(8, "{\"")) return "a safetensors file";
    if (at(0, "<svg") || (at(0, "<?xml") && text.substr(0, 1024).find("<svg") != text.npos))
        return "an SVG drawing";
    if (at(0, "<")) return "an HTML or XML document";
    const std::string_view start = text.substr(0, 512);
    const bool is_text = std::none_of(start.begin(), start.end(), [](unsigned char letter) {
        return letter < 0x20 && letter != '\n' && letter != '\r' && letter != '\t';
    });
    return is_text ? "text" : "unknown data";
}

}  // namespace fovea
