#include <errno.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "apps/app.h"
#include "apps/bench/ops.h"
#include "backend/error.h"
#include "pipelines/text_to_image.h"

namespace fovea::apps::bench {
namespace {

namespace fs = std::filesystem;

/// This program; started through a loader, /proc/self/exe names that.
fs::path own_program() {
    const fs::path self = fs::read_symlink("/proc/self/exe");
    return self.filename().string().starts_with("ld-") ? fs::path(program_invocation_name) : self;
}

struct Folder {
    fs::path path;
    Folder() {
        std::string name = (fs::temp_directory_path() / "fovea-bench-XXXXXX").string();
        require(mkdtemp(name.data()) != nullptr, "[bench] no folder can be made in {}",
                fs::temp_directory_path().string());
        path = name;
    }
    ~Folder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
};

/// One process; the caches of the engine and of the drivers are in `folder`.
Json start(const std::vector<std::string>& arguments, const fs::path& folder) {
    const auto begin = std::chrono::steady_clock::now();
    std::fflush(nullptr);  // else the child prints again what waits in the buffers
    const pid_t child = fork();
    require(child >= 0, "[bench] a process cannot be started");
    const fs::path out = folder / "out.json", err = folder / "err.txt";
    if (child == 0) {
        for (const char* name :
             {"XDG_CACHE_HOME", "__GL_SHADER_DISK_CACHE_PATH", "MESA_SHADER_CACHE_DIR"})
            setenv(name, folder.c_str(), 1);
        unsetenv("FOVEA_VALIDATION");  // layers are no part of a start
        std::vector<char*> words;
        for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
        words.push_back(nullptr);
        if (!std::freopen(out.c_str(), "w", stdout) || !std::freopen(err.c_str(), "w", stderr))
            _exit(127);
        execv(words[0], words.data());
        _exit(127);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    const double wall = seconds_since(begin);
    if (interrupted()) throw Cancelled();
    const auto read = [](const fs::path& path) {
        std::ifstream file(path);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0, "[bench] {} failed: {}",
            fmt::join(arguments, " "), read(err));
    const Json json = Json::parse(read(out), nullptr, false);
    require(json.is_object() && json.contains("first_step_seconds"),
            "[bench] {} printed no first_step_seconds", arguments[0]);
    // What the process did before and after its own clock ran counts as start-up.
    const double around = wall - json.at("seconds").get<double>();
    return {{"first_step_seconds", around + json.at("first_step_seconds").get<double>()},
            {"wall_seconds", wall}};
}

}  // namespace

Json bench_startup(const std::string& device, bool cpu) {
    const Folder folder;
    const std::string size = cpu ? "128x128" : "256x256", steps = cpu ? "1" : "24";
    std::vector<std::string> arguments{
        own_program(), "generate", "a red apple", "--size", size,
        "--steps",     steps,      "--json",      "-o",     (folder.path / "picture.png").string()};
    if (!device.empty()) arguments.insert(arguments.end(), {"--device", device});
    Json result{{"size", size}, {"steps", std::stoi(steps)}};
    result["cold"] = start(arguments, folder.path);
    result["warm"] = Json::array();
    for (int i = 0; i < (cpu ? 1 : 5); ++i) result["warm"].push_back(start(arguments, folder.path));
    fmt::print("startup   {}, {} steps: first step ended after {:.2f} s cold", size, steps,
               result["cold"]["first_step_seconds"].get<double>());
    for (const Json& warm : result["warm"])
        fmt::print(", {:.2f} s warm", warm["first_step_seconds"].get<double>());
    fmt::print("\n");
    return result;
}

}  // namespace fovea::apps::bench
