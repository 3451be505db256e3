#include "apps/batch/claimant.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLock = "lock";
constexpr int64_t kReserve = 64 << 10;  // bytes, for the ledger's last words on a full disk

/// Holds while in scope: nobody's folder is half made or half removed for the others.
class Guard {
  public:
    explicit Guard(const fs::path& home)
        : file_(::open((home / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
        if (file_ < 0 || ::flock(file_, LOCK_EX) != 0)
            throw WriteError(fmt::format("[batch] cannot lock {}: {}", (home / kLock).string(),
                                         std::strerror(errno)));
    }
    ~Guard() { ::close(file_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

  private:
    int file_;
};

bool is_locked(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return false;
    const bool locked = ::flock(file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(file);
    return locked;
}

std::string random_id() {
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

}  // namespace

Claimant::Claimant(const fs::path& home) : id_(random_id()), folder_(home / id_) {
    const Guard guard(home);
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(home, error))
        if (entry.is_directory(error) && !is_locked(entry.path() / kLock))
            fs::remove_all(entry.path(), error);
    if (!fs::create_directory(folder_, error))
        throw WriteError(
            fmt::format("[batch] cannot make {}: {}", folder_.string(), error.message()));
    lock_ = ::open((folder_ / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock_ < 0 || ::flock(lock_, LOCK_EX) != 0)
        throw WriteError(
            fmt::format("[batch] cannot lock {}: {}", folder_.string(), std::strerror(errno)));
    const int reserve = ::open((folder_ / "reserve").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (reserve < 0) return;
    (void)::posix_fallocate(reserve, 0, kReserve);  // else without
    ::close(reserve);
}

Claimant::~Claimant() {
    std::error_code error;
    fs::remove_all(folder_, error);
    if (lock_ >= 0) ::close(lock_);
}

void Claimant::clear() const {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder_, error))
        if (entry.path().filename() != kLock) fs::remove_all(entry.path(), error);
}

bool Claimant::lives(const fs::path& home, const std::string& id) {
    const Guard guard(home);
    return is_locked(home / id / kLock);
}

}  // namespace fovea::apps::batch
