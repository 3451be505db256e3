#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/app.h"
#include "backend/error.h"
#include "backend/vk/profile.h"
#include "pipelines/denoise.h"
#include "pipelines/score.h"

/// What `fovea generate` and `fovea video` share: options, the settings that travel with what they
/// make, reports.
namespace fovea::apps {

using Json = nlohmann::json;

constexpr const char* kSettingsName = "fovea";  ///< of the settings as JSON in PNG text

struct GenerationOptions {
    std::string prompt, output, size, sampler = "dpmpp2m", pattern, from;
    std::string device, precision = "auto", model;
    uint64_t seed = 0;
    int steps = 24, preview = 0;
    std::optional<float> cfg;
    std::string guidance;
    bool json = false, profile = false, dry_run = false, entropy_scale = false;
};

/// A file to be written, by its option. An empty path: none.
struct OutputFile {
    const char* option;
    std::string path;
};
/// Before the work, which else would be lost: throws Error where two are one file.
void require_distinct(const char* command, const std::vector<OutputFile>& files);
/// And unless a file of this name can be made, which is tried unless `quiet`.
void require_output(const char* command, const char* option, const std::string& path,
                    bool quiet = false);

/// A check for options of unsigned numbers, of which CLI11 makes huge ones of "-1".
std::string refuse_minus(const std::string& word);

/// On one line, or with so many spaces a level. Bytes that are no UTF-8, which names of files may
/// have, are replaced.
std::string json_text(const Json& json, int indent = -1);

/// As --guidance takes it, lines of help.
std::string guidance_footer();

/// All but prompt, output, size and pattern, whose words differ.
void add_generation_options(CLI::App& command, GenerationOptions& options);

/// "256x256" → width and height.
void parse_size(const char* command, const std::string& text, int& width, int& height);

/// Of an option that may be empty, what can be known of it. Throws Error.
void check_size(const char* command, const std::string& text);

/// Sides for a given picture: its own, at most `most` in the longer one and at least those that can
/// be, as the nearest multiples of 16.
void fit_size(const Image& picture, int64_t most, int& width, int& height);

/// `asked` for one picture; NAME-1.png, NAME-2.png … or FOLDER/fovea-SEED.png for several. Makes
/// the folder. Throws Error for what is neither.
std::vector<std::filesystem::path> output_paths(const char* command, const std::string& asked,
                                                uint64_t seed, int count);

void fill(DenoiseRequest& request, const GenerationOptions& options);

/// What another run needs for the same result, and what it ran on.
Json settings(const GenerationOptions& options, const DenoiseRequest& request, const Model& model,
              const vk::DeviceInfo& device, uint64_t seed, int width, int height);

/// The settings that travel in a picture or a clip; empty: none.
std::string settings_in(const std::string& path);

/// What was asked for with such settings; empty where they do not say.
std::string prompt_in(const std::string& settings);

/// Options from the settings in a file, except those that the command line sets itself.
class Settings {
  public:
    /// text: the JSON; empty: the file has none, an Error.
    Settings(const char* command, const CLI::App& app, const std::string& file,
             const std::string& text);

    template <typename T>
    void take(const char* option, const char* key, T& value) const {
        const auto* given = app_.get_option_no_throw(option);  // none: the command has no such
        if (given && given->count() == 0 && json_.contains(key)) try {
                json_.at(key).get_to(value);
            } catch (const Json::exception&) {
                fail(
                    "[{}] {} says {} {} in its settings, which fovea {} does not write: was it "
                    "made by another command?",
                    command_, file_, key, json_.at(key).dump(), command_);
            }
    }
    void take(GenerationOptions& options) const;
    bool has(const char* key) const { return json_.contains(key); }

  private:
    const CLI::App& app_;
    std::string command_, file_;
    Json json_;
};

/// A preview that is there while the work goes on, whatever its end. Empty: none.
class PreviewFile {
  public:
    explicit PreviewFile(std::filesystem::path path) : path_(std::move(path)) {}
    PreviewFile(const PreviewFile&) = delete;
    PreviewFile& operator=(const PreviewFile&) = delete;
    ~PreviewFile() {
        std::error_code error;
        if (!path_.empty()) std::filesystem::remove(path_, error);
    }

  private:
    std::filesystem::path path_;
};

/// What to say of a prompt: words that the model does not know, an end that it does not read.
std::vector<std::string> word_warnings(const Model& model, const std::string& prompt);
void report_words(const Model& model, const std::string& prompt);

/// What to write instead of a prompt of two things that are joined by "and", which the model mostly
/// makes one of; empty: there are none, or it says how they stand. docs/guidance.md.
std::string parted_prompt(const std::filesystem::path& model, const std::string& prompt);

/// How long and how much memory, as text or JSON.
struct Estimate {
    std::string what;  ///< "256×256, 24 steps, 1 picture"
    double seconds, step_seconds, decode_seconds;
    double passes;  ///< of the model, a step
    uint64_t device_bytes;
};
void report(const Estimate& estimate, const vk::DeviceInfo& device, bool json);

/// The table of a profile on stderr, and a Chrome trace beside the result.
void finish_profile(vk::Stream& stream, const std::filesystem::path& result);

}  // namespace fovea::apps
