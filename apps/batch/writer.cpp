#include <fmt/format.h>

#include <chrono>
#include <system_error>
#include <utility>

#include "apps/app.h"
#include "apps/batch/run.h"
#include "apps/generation.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

constexpr size_t kMostWaiting = 512 << 20;  // bytes of pictures

size_t bytes_of(const Product& product) {
    return product.picture ? product.picture->rgb.size() * sizeof(float) : 0;
}

}  // namespace

void Run::stop(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (!stopped_.exchange(true)) reason_ = reason;
}

std::string Run::reason() const {
    const std::lock_guard lock(mutex_);
    return reason_;
}

void Run::warn_once(const std::string& warning) {
    const std::lock_guard lock(mutex_);
    if (warnings_.insert(warning).second) log::warn("{}", warning);
}

bool Run::ends() const {
    return stopped_ || interrupted();
}

Writer::Writer(Run& run, int threads) : run_(run) {
    try {
        for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {  // of how many threads there may be
        if (threads_.empty()) throw;
        log::warn("{} of {} threads that write: {}", threads_.size(), threads, error.what());
    }
}

Writer::~Writer() {
    {
        const std::lock_guard lock(mutex_);
        closed_ = true;
    }
    changed_.notify_all();
}

void Writer::put(Product product) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_bytes_ < kMostWaiting || run_.stopped(); });
    waiting_bytes_ += bytes_of(product);
    waiting_.push_back(std::move(product));
    changed_.notify_all();
}

void Writer::work() {
    std::unique_lock lock(mutex_);
    while (true) {
        changed_.wait(lock, [&] { return closed_ || !waiting_.empty(); });
        if (waiting_.empty()) return;
        Product product = std::move(waiting_.front());
        waiting_.pop_front();
        waiting_bytes_ -= bytes_of(product);
        ++under_way_;
        changed_.notify_all();
        lock.unlock();
        try {
            if (!run_.stopped()) save(product);
        } catch (const std::exception& error) {  // of the disk or the ledger
            run_.stop(error.what());
            changed_.notify_all();
        }
        lock.lock();
        --under_way_;
    }
}

bool Writer::idle() {
    const std::lock_guard lock(mutex_);
    return waiting_.empty() && under_way_ == 0;
}

void Writer::save(Product& product) {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    Made& made = product.made;
    try {
        if (product.picture)
            save_png(made.written, *product.picture, {{kSettingsName, made.settings}});
        else
            made.settings = settings_in(made.written.string());
        made.hash = sha256_of_file(made.written);
    } catch (const WriteError&) {
        throw;
    } catch (const std::exception& error) {
        return run_.ledger.fail(product.job, error.what(), made.device);
    }
    made.save_seconds += seconds_since(begin);
    commit(std::move(made));
}

// One transaction for all that became ready while another was under way: each waits for the disk.
void Writer::commit(Made made) {
    {
        const std::lock_guard lock(ready_mutex_);
        ready_.push_back(std::move(made));
    }
    const std::lock_guard lock(commit_mutex_);
    std::vector<Made> ready;
    {
        const std::lock_guard ready_lock(ready_mutex_);
        ready.swap(ready_);
    }
    if (!ready.empty()) run_.ledger.finish(ready);
}

}  // namespace fovea::apps::batch
