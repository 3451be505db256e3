#pragma once
/// The program as a user meets it: exit codes, messages, files.

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

namespace fovea::testing {

struct Output {
    int code;
    std::string out, err;
};

/// A folder of its own and the program to run in it.
class Program : public ::testing::Test {
  protected:
    Program()
        : folder_(std::filesystem::temp_directory_path() /
                  ("fovea_cli_" + std::to_string(::getpid()))) {
        std::filesystem::create_directories(folder_);
    }
    ~Program() override {
        std::error_code busy;
        std::filesystem::remove_all(folder_, busy);
    }

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    std::string text(const std::string& name) const {
        std::ifstream file(folder_ / name);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    /// Makes a file; returns its path.
    std::string write(const std::string& name, const std::string& text) const {
        std::ofstream(path(name)) << text;
        return path(name);
    }
    /// JSON Lines.
    static std::vector<nlohmann::json> lines(const std::string& text) {
        std::vector<nlohmann::json> list;
        std::istringstream in(text);
        for (std::string line; std::getline(in, line);) list.push_back(nlohmann::json::parse(line));
        return list;
    }
    /// The program without the wrapper of the validation layers.
    static std::string bare_program() {
        const std::string words = FOVEA_PROGRAM;
        return words.substr(words.rfind(' ') + 1);
    }
    Output run(const std::string& arguments, const std::string& program = FOVEA_PROGRAM) const {
        const std::string command = program + " " + arguments + " >" + path("out.txt") + " 2>" +
                                    path("err.txt") + " </dev/null";
        const int status = std::system(command.c_str());
        return {WEXITSTATUS(status), text("out.txt"), text("err.txt")};
    }
    /// Files other than the captured output.
    size_t files() const {
        size_t count = 0;
        for (const auto& entry : std::filesystem::directory_iterator(folder_))
            if (entry.path().extension() != ".txt") ++count;
        return count;
    }

    const std::filesystem::path folder_;
};

}  // namespace fovea::testing
