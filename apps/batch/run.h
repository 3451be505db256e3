#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "apps/batch/ledger.h"
#include "apps/session.h"

namespace fovea::apps::batch {

struct RunOptions {
    std::vector<std::string> devices;  ///< a worker each, as vk::Device takes them
    int64_t batch = 0;                 ///< jobs computed together at most; 0: by device and memory
};

/// What all threads of a run share.
class Run {
  public:
    Run(Ledger& ledger, RunOptions options) : ledger(ledger), options(std::move(options)) {}

    Ledger& ledger;
    const RunOptions options;

    /// Nothing can be kept any more: all threads end soon. The first reason counts.
    void stop(const std::string& reason);
    bool stopped() const { return stopped_; }
    std::string reason() const;
    /// No new job: stopped, or the user wants an end.
    bool ends() const;

    /// Of thousands of jobs, the first says it for all.
    void warn_once(const std::string& warning);

    std::atomic<int64_t> busy_us = 0;  ///< of all workers, computing

  private:
    std::atomic<bool> stopped_ = false;
    mutable std::mutex mutex_;
    std::string reason_;
    std::set<std::string> warnings_;
};

/// A picture, or a file in the claimant's folder, on its way into the output folder.
struct Product {
    Job job;
    std::optional<Image> picture;
    Made made;  ///< what is known of it before it is saved
};

/// Encodes, writes, hashes, names: beside the devices, with half a GB of pictures waiting at most.
class Writer {
  public:
    Writer(Run& run, int threads);
    ~Writer();  ///< finishes what waits, unless the run was stopped
    void put(Product product);
    /// Nothing waits and nothing is under way.
    bool idle();

  private:
    void work();
    void save(Product& product);
    void commit(Made made);

    Run& run_;
    std::mutex mutex_, ready_mutex_, commit_mutex_;
    std::condition_variable changed_;
    std::deque<Product> waiting_;
    size_t waiting_bytes_ = 0, under_way_ = 0;
    std::vector<Made> ready_;
    bool closed_ = false;
    std::vector<std::jthread> threads_;
};

/// Takes jobs from the ledger until none is left, on one device. Throws Error where the device
/// cannot be used, or not any more. The session is to be closed, and the thread to end, when no
/// other works any more: NVIDIA's driver 580 hangs where a thread that used a device ends while
/// another one closes its own.
void work(Run& run, Writer& writer, const std::string& device, std::optional<Session>& session);

}  // namespace fovea::apps::batch
