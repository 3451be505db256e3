#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace fovea {

/// work(i) for every i < count on the machine's threads, in no order; the first exception is thrown
/// again here.
template <typename Work>
void for_each_in_parallel(uint32_t count, Work&& work) {
    std::atomic<uint32_t> next = 0;
    std::mutex mutex;
    std::exception_ptr error;
    const auto loop = [&] {
        try {
            for (uint32_t i = next++; i < count; i = next++) work(i);
        } catch (...) {
            next = count;
            const std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    const uint32_t threads = std::min(std::max(1u, std::thread::hardware_concurrency()), count);
    try {
        for (uint32_t t = 1; t < threads; ++t) helpers.emplace_back(loop);
    } catch (const std::system_error&) {  // no more threads to be had: fewer will do
    }
    loop();
    for (std::thread& helper : helpers) helper.join();
    if (error) std::rethrow_exception(error);
}

}  // namespace fovea
