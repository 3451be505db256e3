#include "apps/segment_interactive.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>

#include "apps/app.h"
#include "apps/generation.h"
#include "apps/segment_draw.h"
#include "apps/segment_prompt.h"
#include "backend/error.h"

namespace fovea::apps {
namespace {

/// Lines of standard input. std::getline() would sleep through a signal, which restarts its read.
class PromptLines {
  public:
    /// Without white space around it; none at the end.
    std::optional<std::string> next() {
        while (true) {
            if (interrupted()) throw CLI::RuntimeError(kInterrupted);
            const size_t length = text_.find('\n');
            if (length != std::string::npos || (ended_ && !text_.empty())) {
                const std::string line = text_.substr(0, length);
                text_.erase(0, length == std::string::npos ? length : length + 1);
                return CLI::detail::trim_copy(line);
            }
            if (ended_) return std::nullopt;
            read_more();
        }
    }

  private:
    void read_more() {
        // A signal just before it would not end it: hence the time.
        constexpr int kMilliseconds = 200;
        pollfd input{.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
        const int ready = ::poll(&input, 1, kMilliseconds);
        if (ready == 0 || (ready < 0 && errno == EINTR)) return;
        std::array<char, 4096> bytes;
        const ssize_t count = ::read(STDIN_FILENO, bytes.data(), bytes.size());
        if (count < 0 && errno == EINTR) return;
        ended_ = count <= 0;
        if (count > 0) text_.append(bytes.data(), static_cast<size_t>(count));
    }

    std::string text_;
    bool ended_ = false;
};

void say(const Json& json) {
    fmt::print("{}\n", json_text(json));
    std::fflush(stdout);
}

}  // namespace

void answer_prompts(vk::Stream& stream, const SegmentModel& model, const std::string& name,
                    Image image, std::chrono::steady_clock::time_point start) {
    SegmentedPicture picture(stream, model, std::move(image));
    picture.whole();
    stream.wait();
    say({{"picture", name},
         {"width", picture.picture().width},
         {"height", picture.picture().height},
         {"seconds", seconds_since(start)}});
    auto last = std::make_unique<SegmentPrompt>();
    std::optional<Segment> answer;
    PromptLines lines;
    while (const auto line = lines.next()) {
        if (*line == "quit") return;
        if (line->empty()) continue;
        const auto begin = std::chrono::steady_clock::now();
        try {
            if (line->starts_with("save ")) {
                const std::string path = line->substr(5);
                require(answer.has_value(), "[segment] save: there is no answer to save");
                require(path.ends_with(".png"), "[segment] save {} found, expected a .png file",
                        path);
                save_png(path, picture_of(answer->mask()));
                say({{"file", path}});
                continue;
            }
            auto prompt = std::make_unique<SegmentPrompt>(read_prompt(*line, *last));
            answer = picture.ask(*prompt);
            last = std::move(prompt);  // not one that ask() refused
            Json json = answer ? json_of(*answer) : Json::object();
            json["found"] = answer.has_value();
            json["seconds"] = seconds_since(begin);
            say(json);
            last->earlier.reset();
            if (answer) last->earlier = answer->last;
        } catch (const DeviceLost&) {
            throw;
        } catch (const Error& error) {
            say({{"error", error.what()}});
        }
    }
}

}  // namespace fovea::apps
