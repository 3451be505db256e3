#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

#include "apps/app.h"
#include "apps/batch/run.h"
#include "apps/generation.h"
#include "backend/error.h"
#include "backend/log.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPause = std::chrono::milliseconds(200);  // while others do the last jobs

/// For the command of a job: pictures are taken to be drawn together, all else works here.
class JobHost : public Host {
  public:
    explicit JobHost(Session& session) : session_(session) {}
    Session& open(const std::string&) override { return session_; }
    bool take(Drawing&& drawing) override {
        drawing_ = std::move(drawing);
        return true;
    }
    bool quiet() const override { return true; }
    // What is in flight is finished.
    const std::atomic<bool>* cancel() const override { return nullptr; }

    std::optional<Drawing>& drawing() { return drawing_; }

  private:
    Session& session_;
    std::optional<Drawing> drawing_;
};

/// A picture still to be drawn.
struct Sketch {
    Job job;
    Drawing drawing;
};

class Worker {
  public:
    Worker(Run& run, Writer& writer, const std::string& device, std::optional<Session>& session)
        : run_(run), writer_(writer), device_(device), session_(session) {}

    void work() {
        session_.emplace(device_);
        while (!run_.ends()) {
            auto job = run_.ledger.claim();
            if (!job) {
                const Counts counts = run_.ledger.counts();
                if (counts.pending + counts.running == 0) return;
                std::this_thread::sleep_for(kPause);
                continue;
            }
            flight_.assign(1, *job);
            const auto begin = Clock::now();
            try {
                compute(*job);
                lost_ = false;
            } catch (const DeviceLost& error) {
                reopen(error);
            } catch (const WriteError&) {
                give_back();
                throw;
            } catch (const std::exception& error) {  // of the device or the ledger
                give_back(error.what());
                throw;
            }
            run_.busy_us += static_cast<int64_t>(seconds_since(begin) * 1e6);
        }
    }

  private:
    // What is in flight. Where the ledger cannot take it, others would wait for it for ever.
    void give_back(const std::string& reason = {}) {
        try {
            run_.ledger.put_back(flight_, reason);
        } catch (const std::exception& error) {
            run_.stop(error.what());
        }
        flight_.clear();
    }

    void hand_over(Product product) {
        std::erase_if(flight_, [&](const Job& job) { return job.id == product.job.id; });
        writer_.put(std::move(product));
    }

    // Once: a device that is lost again at once would be so for every job.
    void reopen(const DeviceLost& error) {
        give_back(error.what());
        session_.reset();
        if (lost_) throw Error(fmt::format("{} It was opened again and lost again", error.what()));
        lost_ = true;
        log::warn("{}; opening it again", error.what());
        session_.emplace(device_);
    }

    std::filesystem::path place_for(const Job& job) {
        const auto extension = std::filesystem::path(job.file).extension().string();
        return run_.ledger.claimant().folder() /
               fmt::format("{}-{}{}", static_cast<const void*>(this), next_++, extension);
    }

    Made made_of(const Job& job) {
        return {.id = job.id,
                .written = place_for(job),
                .hash = {},
                .settings = {},
                .device = session_->device().info().name};
    }

    void fail(const Job& job, const std::exception& error) {
        run_.ledger.fail(job, error.what(), session_->device().info().name);
    }

    // After an error: what was recorded is done with, memory goes back to the driver.
    void tidy() {
        try {
            session_->stream().wait();
            session_->device().trim();
        } catch (const DeviceLost&) {
            throw;
        } catch (const Error&) {  // of what was recorded
            session_.reset();
            session_.emplace(device_);
        }
    }

    void compute(const Job& job) {
        JobHost host(*session_);
        Made made = made_of(job);
        const auto begin = Clock::now();
        std::vector<Sketch> sketches;
        try {
            run_command(job, made.written.string(), {std::shared_ptr<void>(), &host});
            if (host.drawing()) {
                sketches.push_back({job, std::move(*host.drawing())});
                gather(sketches);
            }
        } catch (const DeviceLost&) {
            throw;
        } catch (const WriteError& error) {
            give_back();
            return run_.stop(error.what());
        } catch (const std::exception& error) {
            fail(job, error);
            give_back();
            return tidy();
        }
        if (!sketches.empty()) return draw(std::move(sketches));
        made.seconds = seconds_since(begin);
        hand_over({job, std::nullopt, std::move(made)});
    }

    // Others that can be drawn with the first. Workers share what is left evenly.
    void gather(std::vector<Sketch>& sketches) {
        const Job& first = sketches[0].job;
        const auto workers = std::ssize(run_.options.devices);
        const int64_t most = most_together(first, sketches[0].drawing) - 1;
        const int64_t more = run_.ledger.pending_of(first, most * workers) / workers;
        if (more < 1) return;
        for (Job& job : run_.ledger.claim_more(first, more)) {
            flight_.push_back(job);
            JobHost host(*session_);
            try {
                run_command(job, place_for(job).string(), {std::shared_ptr<void>(), &host});
                sketches.push_back({std::move(job), std::move(host.drawing().value())});
            } catch (const std::exception& error) {
                fail(job, error);
            }
        }
    }

    int64_t most_together(const Job& job, const Drawing& drawing) {
        const auto& request = drawing.request;
        if (!request.boxes.empty()) return 1;  // they are of one prompt
        if (const auto found = most_.find(job.group()); found != most_.end()) return found->second;
        int64_t most = run_.options.batch;
        if (most == 0) {
            const Model& model = session_->model(drawing.model, drawing.precision);
            most = TextToImage::fitting_batch(session_->device().info(), model, request);
        }
        return most_[job.group()] = most;
    }

    void draw(std::vector<Sketch> sketches) {
        const auto count = std::ssize(sketches);
        const auto begin = Clock::now();
        std::vector<Image> images;
        try {
            const Model& model =
                session_->model(sketches[0].drawing.model, sketches[0].drawing.precision);
            for (const Sketch& sketch : sketches)
                for (const auto& warning : word_warnings(model, sketch.drawing.request.prompt))
                    run_.warn_once(warning);
            images = TextToImage::run(session_->stream(), model, together(sketches));
        } catch (const DeviceLost&) {
            throw;
        } catch (const OutOfMemory& error) {
            tidy();
            if (count == 1) return fail(sketches[0].job, error);
            const int64_t half = count / 2;
            most_[sketches[0].job.group()] = half;  // gather() has set it, to more
            log::warn("{}; {} pictures together from here on", error.what(), half);
            return draw_parts(std::move(sketches), half);
        } catch (const std::exception& error) {
            tidy();
            if (count == 1) return fail(sketches[0].job, error);
            return draw_parts(std::move(sketches), 1);  // it may be one of them alone
        }
        const double seconds = seconds_since(begin);
        for (size_t i = 0; i < sketches.size(); ++i) {
            Job& job = sketches[i].job;
            Made made = made_of(job);
            try {
                refuse_blank({&images[i], 1});
                made.settings = sketches[i].drawing.settings(*session_).dump();
            } catch (const std::exception& error) {
                fail(job, error);
                continue;
            }
            made.batch = count;
            made.seconds = seconds;
            hand_over({std::move(job), std::move(images[i]), std::move(made)});
        }
    }

    void draw_parts(std::vector<Sketch> sketches, int64_t size) {
        const int64_t& most = most_.at(sketches[0].job.group());  // may shrink on the way
        for (auto at = sketches.begin(); at != sketches.end();) {
            const auto end = at + std::min<int64_t>({size, most, sketches.end() - at});
            draw({std::make_move_iterator(at), std::make_move_iterator(end)});
            at = end;
        }
    }

    static TextToImage::Request together(const std::vector<Sketch>& sketches) {
        TextToImage::Request request = sketches[0].drawing.request;
        request.cancel = nullptr;
        request.allow_blank = true;  // judged one by one
        request.most_together = std::ssize(sketches);
        if (sketches.size() == 1) return request;
        request.seeds.clear();
        for (const Sketch& sketch : sketches) {
            request.seeds.push_back(sketch.drawing.request.seeds.at(0));
            request.each_prompt.push_back(sketch.drawing.request.prompt);
        }
        return request;
    }

    Run& run_;
    Writer& writer_;
    const std::string device_;
    std::optional<Session>& session_;
    std::vector<Job> flight_;              ///< claimed and not yet with the writer
    std::map<std::string, int64_t> most_;  ///< together, by group
    int64_t next_ = 0;
    bool lost_ = false;
};

}  // namespace

void work(Run& run, Writer& writer, const std::string& device, std::optional<Session>& session) {
    Worker(run, writer, device, session).work();
}

}  // namespace fovea::apps::batch
