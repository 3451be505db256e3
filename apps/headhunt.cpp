#include "pipelines/headhunt.h"

#include <fmt/format.h>
#include <stdlib.h>  // mkdtemp
#include <sys/wait.h>

#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "apps/generation.h"
#include "backend/error.h"
#include "pipelines/score.h"
#include "vision/file.h"

namespace fovea::apps {
namespace {

namespace fs = std::filesystem;

struct HeadHuntOptions {
    std::string output, prompts, command, state, picture, from, guidance = "cfg:1";
    std::string model, device, precision = "auto", sampler = "dpmpp2m";
    std::vector<int64_t> blocks;
    int count = 5, each = 2, rounds = 1, top = 3, steps = 12, size = 256;
    float scale = 3, u = 1;
    uint64_t seed = 0;
    /// Of --from, where nothing above says otherwise: a prompt and a seed for each picture.
    std::vector<std::string> each_prompt;
    std::vector<uint64_t> seeds;
};

constexpr const char* kEvaluator = "evaluator";

void take_settings(const CLI::App& command, HeadHuntOptions& o) {
    constexpr uint64_t kMostBytes = 16 << 20;
    std::string text;
    if (o.from.ends_with(".png")) {
        text = settings_in(o.from);
    } else {
        const auto bytes = read_file(o.from, kMostBytes);
        text.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    const Settings settings("headhunt", command, o.from, text);
    settings.take("--scale", "scale", o.scale);
    settings.take("--u", "u", o.u);
    settings.take("--blocks", "blocks", o.blocks);
    settings.take("--rounds", "rounds", o.rounds);
    settings.take("--top", "top", o.top);
    settings.take("--guidance", "guidance", o.guidance);
    settings.take("--command", "objective", o.command);
    if (o.command == kEvaluator) o.command.clear();
    settings.take("--steps", "steps", o.steps);
    settings.take("--size", "size", o.size);
    settings.take("--sampler", "sampler", o.sampler);
    settings.take("--precision", "precision", o.precision);
    for (const char* own : {"--prompts", "--count", "--seeds", "--seed"})
        if (command.count(own) > 0) return;
    settings.take("--prompts", "prompts", o.each_prompt);
    settings.take("--prompts", "seeds", o.seeds);
    require(!o.seeds.empty() && o.seeds.size() == o.each_prompt.size(),
            "[headhunt] {} does not say how it was found, expected a list that fovea headhunt "
            "wrote",
            o.from);
}

std::vector<std::string> read_prompts(const HeadHuntOptions& o, const Concepts& concepts) {
    if (o.prompts.empty()) return plain_prompts(concepts, o.count);
    std::vector<std::string> prompts;
    std::ifstream file(o.prompts);
    for (std::string line; std::getline(file, line);)
        if (!line.empty()) prompts.push_back(line);
    require(!prompts.empty(), "[headhunt] {} has no prompts, expected one a line", o.prompts);
    return prompts;
}

/// A folder that goes with its files.
class ScratchFolder {
  public:
    ScratchFolder() {
        std::string name = fs::temp_directory_path() / "fovea-headhunt-XXXXXX";
        require(::mkdtemp(name.data()) != nullptr, "[headhunt] {} cannot be made", name);
        path_ = name;
    }
    ~ScratchFolder() {
        std::error_code error;
        fs::remove_all(path_, error);
    }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    fs::path operator/(const char* name) const { return path_ / name; }

  private:
    fs::path path_;
};

/// The number that `command PICTURE PROMPT` prints last.
double ask(const std::string& command, const fs::path& picture, const std::string& prompt) {
    const auto quoted = [](const std::string& text) {
        std::string result = "'";
        for (const char c : text) {
            if (c == '\'')
                result += "'\\''";
            else
                result += c;
        }
        return result + "'";
    };
    const std::string line =
        fmt::format("{} {} {}", command, quoted(picture.string()), quoted(prompt));
    FILE* pipe = ::popen(line.c_str(), "r");
    require(pipe != nullptr, "[headhunt] --command {} cannot be started", command);
    std::string out;
    char buffer[256];
    while (const size_t n = std::fread(buffer, 1, sizeof buffer, pipe)) out.append(buffer, n);
    const int status = ::pclose(pipe);
    require(WIFEXITED(status) && WEXITSTATUS(status) == 0,
            "[headhunt] --command {} failed with status {}, expected 0 and a number printed",
            command, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    while (!out.empty() && std::isspace(static_cast<unsigned char>(out.back()))) out.pop_back();
    const size_t begin = out.find_last_of(" \t\n") + 1;  // npos + 1: 0
    char* end = nullptr;
    const double score = std::strtod(out.c_str() + begin, &end);
    require(end != out.c_str() + begin && *end == 0 && std::isfinite(score),
            "[headhunt] --command {} printed \"{}\", expected a number at its end", command,
            out.substr(0, 60));
    return score;
}

std::string name_of(const HeadStrength& head) {
    return fmt::format("layer {} head {}", head.layer, head.head);
}

Json file_of(const HeadHunt::Request& request, const HeadHunt::Result& result,
             const HeadHuntOptions& o, const Model& model) {
    Json json{{"heads", Json::array()},
              {"score_without", result.score_without},
              {"scale", request.scale},
              {"objective", request.objective},
              {"guidance", o.guidance},
              {"u", request.u},
              {"blocks", request.blocks},
              {"rounds", request.rounds},
              {"top", request.top},
              {"steps", o.steps},
              {"size", o.size},
              {"sampler", o.sampler},
              {"prompts", request.picture.each_prompt},
              {"seeds", request.picture.seeds},
              {"precision", model.dtype == DType::f16 ? "fp16" : "fp32"},
              {"model", model.hash},
              {"version", kVersion}};
    for (const auto& trial : result.chosen)
        json["heads"].push_back({{"layer", trial.head.layer},
                                 {"head", trial.head.head},
                                 {"u", trial.head.u},
                                 {"score", trial.score}});
    return json;
}

/// A row without, a row a chosen head alone, a row of all together; a column a prompt and seed.
void draw_sheet(vk::Stream& stream, const Model& model, HeadHunt::Request request,
                const HeadHunt::Result& result, const std::string& path, const Json& settings) {
    constexpr size_t kColumns = 6;
    auto& seeds = request.picture.seeds;
    auto& prompts = request.picture.each_prompt;
    // Those far apart: seeds of a prompt stand together.
    const size_t columns = std::min(kColumns, seeds.size());
    for (size_t i = 0; i < columns; ++i) {
        seeds[i] = seeds[i * seeds.size() / columns];
        prompts[i] = prompts[i * prompts.size() / columns];
    }
    seeds.resize(columns);
    prompts.resize(columns);
    std::vector<std::vector<HeadStrength>> rows{{}};
    for (const auto& trial : result.chosen) rows.push_back({trial.head});
    if (result.chosen.size() > 1) {
        rows.emplace_back();
        for (const auto& trial : result.chosen) rows.back().push_back(trial.head);
    }
    std::vector<Image> cells;
    Progress progress("drawing");
    for (size_t i = 0; i < rows.size(); ++i) {
        for (Image& image : HeadHunt::draw(stream, model, request, rows[i]))
            cells.push_back(std::move(image));
        progress.update(static_cast<int>(i) + 1, static_cast<int>(rows.size()));
    }
    save_png(path, tile_images(cells, static_cast<int>(columns)),
             {{kSettingsName, settings.dump()}});
}

void run(const CLI::App& command, HeadHuntOptions o) {
    if (!o.from.empty()) take_settings(command, o);
    require_folder_of("headhunt", "--output", o.output);
    require_png("headhunt", "--draw", o.picture);
    const fs::path folder = find_model(o.model);
    vk::Device device(o.device);
    vk::Stream stream(device);
    const DType dtype = choose_precision(device.info(), o.precision);
    const Model model = Model::load(stream, folder, dtype);
    const Scorer scorer(stream, folder, dtype);

    HeadHunt::Request request;
    request.scale = o.scale;
    request.u = o.u;
    request.blocks = o.blocks;
    request.rounds = o.rounds;
    request.top = o.top;
    request.state = o.state.empty() ? o.output + ".state" : o.state;
    auto& picture = request.picture;
    picture.each_prompt = o.each_prompt;
    picture.seeds = o.seeds;
    if (o.seeds.empty())
        for (const std::string& prompt : read_prompts(o, scorer.concepts()))
            for (int i = 0; i < o.each; ++i) {
                picture.each_prompt.push_back(prompt);
                picture.seeds.push_back(o.seed + static_cast<uint64_t>(i));
            }
    picture.width = picture.height = o.size;
    picture.steps = o.steps;
    picture.sampler = sampler_by_name(o.sampler);
    picture.guidance = parse_guidance(o.guidance);
    picture.cancel = &interrupted();
    request.objective = o.command.empty() ? kEvaluator : o.command;
    const ScratchFolder scratch;
    request.score = [&](const std::vector<Image>& images) {
        std::vector<double> scores;
        if (o.command.empty()) {
            const auto seen = scorer.look(stream, images);
            for (size_t i = 0; i < seen.size(); ++i)
                scores.push_back(
                    rating(read_prompt(scorer.concepts(), picture.each_prompt[i]), seen[i]));
            return scores;
        }
        for (size_t i = 0; i < images.size(); ++i) {
            const fs::path file = scratch / "picture.png";
            save_png(file, images[i]);
            scores.push_back(ask(o.command, file, picture.each_prompt[i]));
        }
        return scores;
    };
    HeadHunt::Result result;
    {
        Progress progress("headhunt");
        request.on_trial = [&](int done, int total) { progress.update(done, total); };
        result = HeadHunt::run(stream, model, request);
    }
    std::ofstream file(o.output);
    const Json list = file_of(request, result, o, model);
    file << list.dump(1) << "\n";
    require(file.good(), "[headhunt] {} cannot be written", o.output);
    if (!o.picture.empty()) draw_sheet(stream, model, request, result, o.picture, list);

    fmt::print("score without  {:.4f}\n", result.score_without);
    for (size_t i = 0; i < result.chosen.size(); ++i)
        fmt::print("{:2}. {:<16} {:.4f}\n", i + 1, name_of(result.chosen[i].head),
                   result.chosen[i].score);
    if (!o.picture.empty())
        fmt::print("{}: rows without, by each of these heads alone, by all\n", o.picture);
    fmt::print("{}\ntry: fovea generate \"a castle\" --guidance cfg:3,softpag:heads={}\n", o.output,
               o.output);
}

}  // namespace

void add_headhunt(CLI::App& app) {
    auto* command = app.add_subcommand(
        "headhunt", "Search the attention heads that are worth guiding away from");
    auto o = std::make_shared<HeadHuntOptions>();
    command->add_option("-o,--output", o->output, "The list of heads, JSON")->required();
    command
        ->add_option("--prompts", o->prompts,
                     "A file with a prompt a line (default: --count objects of the model)")
        ->check(CLI::ExistingFile);
    command->add_option("--count", o->count, "Prompts, where no file gives them")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--seeds", o->each, "Pictures a prompt")
        ->check(CLI::Range(1, 100))
        ->capture_default_str();
    command->add_option("--seed", o->seed, "Of each prompt's first picture")
        ->check(refuse_minus)
        ->capture_default_str();
    command->add_option(
        "--command", o->command,
        "Scores pictures instead of the evaluator: called as COMMAND PICTURE.png PROMPT, prints a "
        "number, higher is better");
    command->add_option("--blocks", o->blocks, "Layers whose heads are tried, as in 3,4,5")
        ->delimiter(',');
    command->add_option("--rounds", o->rounds, "Of trying all heads that are left")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--top", o->top, "Heads chosen a round")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--scale", o->scale, "Of the heads' guidance")->capture_default_str();
    command->add_option("--u", o->u, "Strength: 1 is identity")
        ->check(CLI::Range(0.01f, 1.0f))
        ->capture_default_str();
    command->add_option("--guidance", o->guidance, "What acts beside it, as in cfg:3")
        ->capture_default_str();
    command
        ->add_option("--from", o->from,
                     "A list that was written before, or its sheet: searched for again with all "
                     "its settings, but for those given here")
        ->check(CLI::ExistingFile);
    command->add_option("--state", o->state,
                        "Where trials are kept, to go on after an interrupt (default: beside the "
                        "list)");
    command->add_option("--draw", o->picture,
                        "Write a PNG: pictures without, by each chosen head, by all");
    command->add_option("--steps", o->steps, "Of a picture")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command->add_option("--size", o->size, "Pixels a side")->capture_default_str();
    command->add_option("--sampler", o->sampler)->capture_default_str();
    command->add_option("--model", o->model, "Model folder");
    command->add_option("--device", o->device, "Device index or part of its name");
    command->add_option("--precision", o->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->capture_default_str();
    command->footer(
        "Greedy search (HeadHunter): each round tries every head beside those chosen so far and\n"
        "keeps the best. A trial is drawn for every prompt and seed.\n\n"
        "Examples:\n"
        "  fovea headhunt -o heads.json --draw heads.png\n"
        "  fovea generate \"a castle\" --guidance cfg:3,softpag:heads=heads.json\n"
        "  fovea headhunt -o sharp.json --prompts list.txt --command ./sharpness.py --rounds 3\n"
        "  fovea headhunt --from heads.json --seed 100 -o other.json");
    command->callback([command, o] { run(*command, *o); });
}

}  // namespace fovea::apps
