#include "backend/vk/workers.h"

#include <algorithm>

namespace fovea::vk {

void Workers::run(std::function<void()> job) {
    {
        const std::lock_guard lock(mutex_);
        jobs_.push_back(std::move(job));
        const size_t most = std::max(1u, std::thread::hardware_concurrency());
        if (jobs_.size() > idle_ && threads_.size() < most)
            threads_.emplace_back([this] { work(); });
    }
    changed_.notify_one();
}

void Workers::wait() {
    std::unique_lock lock(mutex_);
    idled_.wait(lock, [&] { return jobs_.empty() && idle_ == threads_.size(); });
}

void Workers::stop() {
    {
        const std::lock_guard lock(mutex_);
        jobs_.clear();
        stopping_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
}

void Workers::work() {
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        idled_.notify_all();
        changed_.wait(lock, [&] { return stopping_ || !jobs_.empty(); });
        --idle_;
        if (jobs_.empty()) return;
        const auto job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        job();
        lock.lock();
    }
}

}  // namespace fovea::vk
