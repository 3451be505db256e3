#include "apps/batch/jobs.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <istream>

#include "backend/error.h"
#include "backend/patterns/parallel.h"
#include "vision/file.h"

namespace fovea::apps::batch {
namespace {

constexpr size_t kMaxJobs = 1'000'000;  // of a grid that was meant to be smaller

/// Everything but the work: commands open a device when they have checked all else.
class Checked {};
class Checker : public Host {
  public:
    Session& open(const std::string&) override { throw Checked(); }
    bool take(Drawing&&) override { throw Checked(); }
    bool quiet() const override { return true; }
};

std::unique_ptr<CLI::App> parser_of(const JobType& type, const std::shared_ptr<Host>& host) {
    auto app = std::make_unique<CLI::App>();
    type.add(*app, host);
    require_finite(*app);
    return app;
}

// To look options up.
std::map<std::string, std::unique_ptr<CLI::App>> parsers_by_type() {
    std::map<std::string, std::unique_ptr<CLI::App>> parsers;
    for (const JobType& type : job_types())
        parsers.emplace(type.name, parser_of(type, std::make_shared<Checker>()));
    return parsers;
}

CLI::App& command_of(CLI::App& app) {
    return *app.get_subcommands([](CLI::App*) { return true; }).at(0);
}

// By long name or, of a positional one, its name. Null where there is none.
const CLI::Option* find_option(const CLI::App& command, const std::string& key) {
    for (const CLI::Option* option : command.get_options())
        if (option->check_lname(key) || (option->get_positional() && option->get_name(true) == key))
            return option;
    return nullptr;
}

bool is_positional(const CLI::Option& option) {
    return option.get_lnames().empty();
}

std::vector<std::string> keys_of(const CLI::App& command) {
    std::vector<std::string> keys;
    for (const CLI::Option* option : command.get_options()) {
        const std::string key =
            is_positional(*option) ? option->get_name(true) : option->get_lnames().front();
        if (key != "help" && !refused_keys().contains(key)) keys.push_back(key);
    }
    return keys;
}

std::string word_of(const std::string& key, const Json& value) {
    if (value.is_string()) return value.get<std::string>();
    require(value.is_number(), "\"{}\": {} found, expected text or a number", key, value.dump());
    return value.dump();
}

void check_by_command(const Job& job) {
    try {
        run_command(job, "checked" + extension_of(job), std::make_shared<Checker>());
    } catch (const Checked&) {
    }
}

/// Jobs of a file as they come; what is wrong with them is told at the end.
class Reader {
  public:
    Reader(const Json& defaults) : defaults_(defaults) {}

    void line(int number, const std::string& text) {
        if (text.find_first_not_of(" \t\r") == std::string::npos) return;
        lines_.push_back({.number = number, .begin = candidates_.size(), .reason = {}});
        try {
            Json json;
            try {
                json = Json::parse(text);
            } catch (const Json::parse_error& error) {
                fail("no JSON: {}", reason_of(error.what()));
            }
            require(json.is_object(), "{} found, expected an object", json.type_name());
            if (json.contains("defaults"))
                take_defaults(json);
            else
                expand(json);
        } catch (const std::exception& error) {
            candidates_.resize(lines_.back().begin);
            lines_.back().reason = error.what();
        }
    }

    /// All of a line or nothing. Commands check their options on all of the machine's threads.
    JobList finish() {
        for_each_in_parallel(static_cast<uint32_t>(candidates_.size()), [&](uint32_t i) {
            try {
                check_by_command(candidates_[i].job);
            } catch (const std::exception& error) {
                candidates_[i].reason = error.what();
            }
        });
        JobList list;
        std::map<std::string, int> lines;  // of ids
        for (size_t i = 0; i < lines_.size(); ++i) {
            Line& line = lines_[i];
            const size_t end = i + 1 < lines_.size() ? lines_[i + 1].begin : candidates_.size();
            for (size_t c = line.begin; c < end && line.reason.empty(); ++c)
                line.reason = reason_against(candidates_[c], line.number, lines);
            if (!line.reason.empty()) {
                for (size_t c = line.begin; c < end; ++c)
                    if (const auto own = lines.find(candidates_[c].job.id);
                        own != lines.end() && own->second == line.number)
                        lines.erase(own);
                list.bad.push_back({line.number, line.reason});
                continue;
            }
            for (size_t c = line.begin; c < end; ++c) {
                Job& job = candidates_[c].job;
                job.index = std::ssize(list.jobs);
                job.line = line.number;
                list.jobs.push_back(std::move(job));
            }
        }
        return list;
    }

  private:
    struct Line {
        int number;
        size_t begin;  ///< of its jobs among the candidates; they end with the next line's
        std::string reason;
    };
    struct Candidate {
        Job job;
        bool named;  ///< its line gives its id
        std::string reason;
    };

    // "[json.exception.parse_error.101] parse error at line 1, column 7: …" → from the column on
    static std::string reason_of(const std::string& text) {
        const size_t at = text.find("column");
        return at == std::string::npos ? text : text.substr(at);
    }

    void take_defaults(const Json& json) {
        require(json.size() == 1 && json["defaults"].is_object(),
                "\"defaults\" stands alone and is an object, as in {{\"defaults\": "
                "{{\"steps\": 8}}}}");
        defaults_.update(json["defaults"]);
    }

    void expand(Json json) {
        // fovea segment has an option of this name, a number.
        if (!json.contains("grid") || json["grid"].is_number()) return add(std::move(json));
        const Json grid = json["grid"];
        json.erase("grid");
        require(grid.is_object() && !grid.empty(),
                "\"grid\" is an object of lists, as in {{\"seed\": [1, 2, 3]}}");
        size_t total = 1;
        for (const auto& [key, values] : grid.items()) {
            require(values.is_array() && !values.empty(),
                    "\"grid\": \"{}\" is {}, expected a list of values", key, values.dump());
            require(!json.contains(key), "\"{}\" found both in \"grid\" and beside it", key);
            require(key != "id", "\"id\" in \"grid\": leave it out, or give one beside the grid");
            total *= values.size();
            require(total + candidates_.size() <= kMaxJobs, "more than {} jobs", kMaxJobs);
        }
        const std::string id = json.contains("id") ? id_of(json) : "";
        for (size_t i = 0; i < total; ++i) {
            Json one = json;
            size_t rest = i;  // the last key turns fastest
            for (auto at = grid.rbegin(); at != grid.rend(); ++at) {
                one[at.key()] = at.value()[rest % at.value().size()];
                rest /= at.value().size();
            }
            if (!id.empty()) one["id"] = fmt::format("{}-{}", id, i + 1);
            add(std::move(one));
        }
    }

    static std::string id_of(const Json& json) {
        const Json& id = json["id"];
        require(id.is_string() && !id.get_ref<const std::string&>().empty(),
                "\"id\": {} found, expected text", id.dump());
        const auto& text = id.get_ref<const std::string&>();
        require(std::none_of(text.begin(), text.end(),
                             [](unsigned char c) { return c < 0x20 || c == 0x7f; }),
                "\"id\": {} has a control character, expected text without", id.dump());
        return text;
    }

    void add(Json json) {
        Json options = defaults_;
        options.update(json);
        require(options.contains("type"), "no \"type\"; expected one of {}", types());
        const JobType* type =
            options["type"].is_string() ? find_type(options["type"].get<std::string>()) : nullptr;
        require(type != nullptr, "\"type\": {} found, expected one of {}", options["type"].dump(),
                types());
        Job job{.type = type->name};
        if (options.contains("id")) job.id = id_of(options);
        options.erase("type");
        options.erase("id");
        for (auto at = options.begin(); at != options.end();)  // null: as if not there
            at = at->is_null() ? options.erase(at) : std::next(at);
        job.options = std::move(options);
        if (job.id.empty()) job.id = sha256(job.spec()).substr(0, 16);
        candidates_.push_back({std::move(job), json.contains("id"), {}});
    }

    // Why a line's job is bad; else its id is its own from here on, and nothing is returned.
    static std::string reason_against(const Candidate& candidate, int line,
                                      std::map<std::string, int>& lines) {
        if (!candidate.reason.empty()) return candidate.reason;
        const std::string& id = candidate.job.id;
        const auto [found, is_new] = lines.try_emplace(id, line);
        if (is_new) return {};
        return fmt::format("the same {} as line {}",
                           candidate.named ? "\"id\" " + Json(id).dump() : "job", found->second);
    }

    static std::string types() {
        std::vector<std::string> names;
        for (const JobType& type : job_types()) names.emplace_back(type.name);
        return fmt::format("{}", fmt::join(names, ", "));
    }

    Json defaults_;
    std::vector<Line> lines_;
    std::vector<Candidate> candidates_;
};

// What an editor should offer for an option. null: without it, whatever the defaults say.
Json schema_of(const CLI::Option& option) {
    Json json{{"description", option.get_description()}};
    if (option.get_items_expected_max() == 0) {
        json["type"] = {"boolean", "null"};
    } else if (option.get_expected_max() > 1) {
        json["type"] = {"array", "string", "number", "null"};
        json["items"] = {{"type", {"string", "number"}}};
    } else {
        const std::string type = option.get_type_name();
        if (type.starts_with("INT") || type.starts_with("UINT"))
            json["type"] = {"integer", "null"};
        else if (type.starts_with("FLOAT"))
            json["type"] = {"number", "null"};
        else
            json["type"] = {"string", "null"};
    }
    return json;
}

}  // namespace

const std::vector<JobType>& job_types() {
    static const std::vector<JobType> types{
        {"generate", ".png", add_generate}, {"video", ".mp4", add_video},
        {"edit", ".png", add_edit},         {"inpaint", ".png", add_inpaint},
        {"lens", ".png", add_lens},         {"segment", ".png", add_segment},
    };
    return types;
}

const JobType* find_type(const std::string& name) {
    for (const JobType& type : job_types())
        if (name == type.name) return &type;
    return nullptr;
}

std::string extension_of(const Job& job) {
    const auto picture = job.options.find("picture");
    if ((job.type == "edit" || job.type == "segment") && picture != job.options.end() &&
        picture->is_string()) {
        std::string path = picture->get<std::string>();
        std::error_code error;  // frames: a folder of them, or a name with %d, which is no file's
        const bool pattern =
            path.find('%') != std::string::npos && !std::filesystem::exists(path, error);
        if (pattern || std::filesystem::is_directory(path, error)) return ".webp";
        std::transform(path.begin(), path.end(), path.begin(), [](unsigned char letter) {
            return static_cast<char>(std::tolower(letter));
        });
        for (const char* clip : {".mp4", ".webp", ".gif"})
            if (path.ends_with(clip)) return ".webp";
    }
    return find_type(job.type)->extension;
}

const std::map<std::string, std::string>& refused_keys() {
    static const std::map<std::string, std::string> keys{
        {"count", R"(a job makes one file; several: {"grid": {"seed": [1, 2, 3]}})"},
        {"device", "devices are the batch's: fovea batch --devices"},
        {"dry-run", "of the whole batch: fovea batch --dry-run"},
        {"json", "results.jsonl has it"},
        {"cutout", "a job makes one file, the mask"},
        {"interactive", "a job has one prompt"},
        {"json-file", "a job makes one file, the mask"},
        {"overlay", "a job makes one file, the mask"},
        {"preview", "a job makes one file"},
        {"profile", "profile one job alone, by its command"},
        {"show-mask", "a job makes one file"},
        {"save-mask", "a job makes one file"},
    };
    return keys;
}

std::string Job::spec() const {
    return Json{{"type", type}, {"options", options}}.dump();
}

std::string Job::group() const {
    Json same = options;
    for (const char* own : {"prompt", "seed", "output"}) same.erase(own);
    return Json{{"type", type}, {"options", same}}.dump();
}

std::vector<std::string> command_line(const Job& job, const std::string& output) {
    static const auto parsers = parsers_by_type();
    const CLI::App& command = command_of(*parsers.at(job.type));
    std::vector<std::string> words{job.type};
    for (const auto& [key, value] : job.options.items()) {
        if (key == "output") continue;
        if (const auto refused = refused_keys().find(key); refused != refused_keys().end())
            fail("\"{}\": {}", key, refused->second);
        const CLI::Option* option = find_option(command, key);
        require(option != nullptr && key != "help", "\"{}\" is no option of {}; there are {}", key,
                job.type, fmt::join(keys_of(command), ", "));
        if (is_positional(*option)) continue;
        if (option->get_items_expected_max() == 0) {
            require(value.is_boolean(), "\"{}\": {} found, expected true or false", key,
                    value.dump());
            if (value.get<bool>()) words.push_back("--" + key);
            continue;
        }
        const std::vector<Json> values =
            value.is_array() ? value.get<std::vector<Json>>() : std::vector<Json>{value};
        require(!value.is_array() || option->get_expected_max() > 1,
                "\"{}\": {} found, expected one value (several jobs: \"grid\")", key, value.dump());
        for (const Json& one : values) {
            const std::string word = word_of(key, one);
            if (!word.empty()) {
                words.push_back(fmt::format("--{}={}", key, word));
            } else {  // behind a = with nothing CLI11 takes the next word
                words.push_back("--" + key);
                words.push_back(word);
            }
        }
    }
    words.push_back("--output=" + output);  // behind options that take several, which eat the --
    words.emplace_back("--");
    for (const CLI::Option* option : command.get_options())
        if (is_positional(*option) && job.options.contains(option->get_name(true))) {
            const std::string key = option->get_name(true);
            words.push_back(word_of(key, job.options[key]));
        }
    return words;
}

void run_command(const Job& job, const std::string& output, const std::shared_ptr<Host>& host) {
    auto words = command_line(job, output);
    const auto app = parser_of(*find_type(job.type), host);
    std::reverse(words.begin(), words.end());  // as CLI11 takes them
    try {
        app->parse(std::move(words));
    } catch (const CLI::ParseError& error) {
        fail("{}", error.what());
    }
}

JobList read_jobs(std::istream& in, const Json& defaults) {
    Reader reader(defaults);
    std::string text;
    for (int number = 1; std::getline(in, text); ++number) reader.line(number, text);
    return reader.finish();
}

Json job_schema() {
    auto kinds = Json::array();
    for (const JobType& type : job_types()) {
        const auto app = parser_of(type, std::make_shared<Checker>());
        const CLI::App& command = command_of(*app);
        Json properties{
            {"type", {{"const", type.name}}},
            {"id",
             {{"type", "string"}, {"minLength", 1}, {"description", "Default: from the content"}}}};
        for (const std::string& key : keys_of(command))
            properties[key] = schema_of(*find_option(command, key));
        const Json grid{{"type", "object"},
                        {"description", "Lists of values: a job for each combination"},
                        {"minProperties", 1},
                        {"additionalProperties", {{"type", "array"}, {"minItems", 1}}}};
        auto& own = properties["grid"];
        own = own.is_null() ? grid : Json{{"anyOf", {grid, own}}};
        properties["output"]["description"] = fmt::format(
            "Name below the output folder, as --name; default: {{id}}{}", type.extension);
        kinds.push_back({{"title", type.name},
                         {"type", "object"},
                         {"properties", properties},
                         {"additionalProperties", false}});
    }
    kinds.push_back({{"title", "defaults of the lines below"},
                     {"type", "object"},
                     {"properties", {{"defaults", {{"type", "object"}}}}},
                     {"required", {"defaults"}},
                     {"additionalProperties", false}});
    return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
            {"title", "A line of the jobs of fovea batch"},
            {"description", "Made by fovea batch --schema"},
            {"anyOf", kinds}};
}

}  // namespace fovea::apps::batch
