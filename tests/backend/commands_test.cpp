#include "backend/vk/commands.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>

/// Recording that does not wait for pipelines, and the threads that make them; no device.
namespace fovea::vk {
namespace {

/// Notes what is written, in order.
class Recording {
  public:
    Commands commands;
    std::string written;

    void dispatch(const Program& program, char name) { put(&program, name); }
    void copy(char name) { put(nullptr, name); }

  private:
    void put(const Program* program, char name) {
        commands.put(program, std::string("op ") + name,
                     [this, name](VkCommandBuffer) { written += name; });
    }
};

TEST(Commands, AreWrittenAtOnceWhereAllPipelinesAreThere) {
    Program ready;
    ready.finish(Program::State::ready);
    Recording r;
    r.dispatch(ready, 'a');
    r.copy('b');
    r.dispatch(ready, 'c');
    EXPECT_EQ(r.written, "abc");
    EXPECT_FALSE(r.commands.waits());
}

TEST(Commands, KeepTheirOrderBehindAPipelineInTheMaking) {
    Program ready, slow, slower;
    ready.finish(Program::State::ready);
    Recording r;
    r.dispatch(ready, 'a');
    r.dispatch(slow, 'b');
    r.copy('c');
    r.dispatch(ready, 'd');
    r.dispatch(slower, 'e');
    EXPECT_EQ(r.written, "a");
    slow.finish(Program::State::ready);
    r.dispatch(slow, 'f');
    EXPECT_EQ(r.written, "a");
    EXPECT_TRUE(r.commands.waits());
    std::thread maker([&] { slower.finish(Program::State::ready); });
    std::string failure;
    r.commands.write_kept(failure);
    maker.join();
    EXPECT_EQ(r.written, "abcdef");
    EXPECT_EQ(failure, "");
    EXPECT_FALSE(r.commands.waits());
    r.dispatch(ready, 'g');
    EXPECT_EQ(r.written, "abcdefg");
}

TEST(Commands, AreKeptOnRequest) {
    Program ready;
    ready.finish(Program::State::ready);
    Commands commands;
    int written = 0;
    commands.put(
        nullptr, {}, [&](VkCommandBuffer) { ++written; }, true);
    commands.put(&ready, "op", [&](VkCommandBuffer) { ++written; });
    EXPECT_EQ(written, 0);
    EXPECT_FALSE(commands.waits());
    std::string failure;
    commands.write_kept(failure);
    EXPECT_EQ(written, 2);
}

TEST(Commands, WithoutItsPipelineADispatchAndThoseAfterItAreLeftOut) {
    Program ready, slow, broken;
    ready.finish(Program::State::ready);
    Recording r, next;
    r.dispatch(slow, 'a');
    r.dispatch(broken, 'b');
    r.copy('c');
    r.dispatch(ready, 'd');
    slow.finish(Program::State::ready);
    broken.error = "the reason";
    broken.finish(Program::State::failed);
    std::string failure;
    r.commands.write_kept(failure);
    EXPECT_EQ(r.written, "ac");
    EXPECT_NE(failure.find("[op b]"), std::string::npos) << failure;
    EXPECT_NE(failure.find("the reason"), std::string::npos) << failure;
    const std::string first = failure;
    next.dispatch(broken, 'e');
    next.copy('f');
    next.commands.write_kept(failure);
    EXPECT_EQ(next.written, "f");
    EXPECT_EQ(failure, first);
}

TEST(Workers, RunJobsSideBySide) {
    const auto threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    std::mutex mutex;
    std::condition_variable changed;
    int running = 0, met = 0, ended = 0;
    Workers workers;
    for (int i = 0; i < threads; ++i)
        workers.run([&] {
            std::unique_lock lock(mutex);
            ++running;
            changed.notify_all();
            met += changed.wait_for(lock, std::chrono::seconds(60),
                                    [&] { return running == threads; });
            ++ended;
            changed.notify_all();
        });
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return ended == threads; });
    EXPECT_EQ(met, threads);
}

TEST(Workers, StopWaitsForJobsThatRun) {
    std::promise<void> started;
    std::atomic<bool> ended = false;
    Workers workers;
    workers.run([&] {
        started.set_value();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ended = true;
    });
    started.get_future().wait();
    workers.stop();
    EXPECT_TRUE(ended);
}

TEST(Workers, RunEveryJobOnce) {
    constexpr int kJobs = 200;
    std::atomic<int> runs = 0;
    std::promise<void> last;
    Workers workers;
    for (int i = 0; i < kJobs; ++i)
        workers.run([&] {
            if (++runs == kJobs) last.set_value();
        });
    last.get_future().wait();
    workers.stop();
    EXPECT_EQ(runs, kJobs);
}

}  // namespace
}  // namespace fovea::vk
