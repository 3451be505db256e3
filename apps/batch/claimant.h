#pragma once

#include <filesystem>
#include <string>

namespace fovea::apps::batch {

/// A process at work in an output folder: a folder of its own with a lock, which the system frees
/// when the process ends, however it ends. What it writes lies there until it is complete.
class Claimant {
  public:
    /// home: where the folders of all are; those of dead ones are removed. Throws WriteError.
    explicit Claimant(const std::filesystem::path& home);
    ~Claimant();
    Claimant(const Claimant&) = delete;
    Claimant& operator=(const Claimant&) = delete;

    const std::string& id() const { return id_; }
    const std::filesystem::path& folder() const { return folder_; }
    /// Removes what lies there, with a reserve of the disk's room.
    void clear() const;

    /// Whether the process of that name lives.
    static bool lives(const std::filesystem::path& home, const std::string& id);

  private:
    std::string id_;
    std::filesystem::path folder_;
    int lock_ = -1;
};

}  // namespace fovea::apps::batch
