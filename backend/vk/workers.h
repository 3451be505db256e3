#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fovea::vk {

/// Threads that take jobs in the order given, at most as many as the machine runs at once; each is
/// started by a job that finds none idle. Jobs do not throw.
class Workers {
  public:
    Workers() = default;
    ~Workers() { stop(); }
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;

    void run(std::function<void()> job);

    void wait();  ///< until no job is left or under way

    /// Drops the jobs that no thread has taken and waits for the others; no job is taken after it.
    void stop();

  private:
    void work();

    std::mutex mutex_;
    std::condition_variable changed_, idled_;
    std::deque<std::function<void()>> jobs_;
    std::vector<std::thread> threads_;
    size_t idle_ = 0;
    bool stopping_ = false;
};

}  // namespace fovea::vk
