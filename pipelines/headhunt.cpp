#include "pipelines/headhunt.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "pipelines/score.h"
#include "vision/file.h"

namespace fovea {
namespace {

using Json = nlohmann::json;
using Request = HeadHunt::Request;
using Trial = HeadHunt::Trial;

/// Scores by round and head, as the file has them: {"search": …, "without": 0.4, "rounds":
/// [{"3.1": 0.5, …}, …]}.
class State {
  public:
    State(const Request& request, const Model& model) : path_(request.state) {
        std::vector<int64_t> seeds(request.picture.seeds.begin(), request.picture.seeds.end());
        std::vector<std::string> terms;
        for (const GuidanceTerm& term : guidance_of(request.picture).terms) {
            terms.push_back(fmt::format(
                "{}:{}@steps={}-{},every={},blocks={},heads={},u={},sigma={},eta={},beta={},norm={}"
                ",zero={}",
                name_of(term.kind), term.scale, term.from, term.to, term.every,
                fmt::join(term.blocks, "+"), fmt::join(term.heads, "+"), term.u, term.sigma,
                term.eta, term.beta, term.norm, term.zero));
            for (const HeadStrength& head : term.strengths)
                terms.back() += fmt::format(",{}.{}={}", head.layer, head.head, head.u);
        }
        const Json search{{"model", model.hash},
                          {"prompts", request.picture.each_prompt},
                          {"seeds", seeds},
                          {"size", {request.picture.width, request.picture.height}},
                          {"steps", request.picture.steps},
                          {"sampler", static_cast<int>(request.picture.sampler)},
                          {"guidance", terms},
                          {"scale", request.scale},
                          {"u", request.u},
                          {"top", request.top},
                          {"blocks", request.blocks},
                          {"objective", request.objective}};
        std::ifstream file(path_);
        if (!file.good()) {
            json_ = {{"search", search}, {"rounds", Json::array()}};
            return;
        }
        json_ = Json::parse(file, nullptr, false);
        require(json_.is_object() && json_.contains("search") && json_.contains("rounds") &&
                    json_.at("rounds").is_array(),
                "[headhunt] {} is not the state of a search; remove it or give another --state",
                path_.string());
        for (const auto& [key, value] : search.items())
            require(json_.at("search").value(key, Json()) == value,
                    "[headhunt] {} is of a search with other {}; remove it or give another --state",
                    path_.string(), key);
    }

    const Json* find(int round, const std::string& key) const {
        const Json& rounds = json_.at("rounds");
        if (round < 0) return json_.contains(key) ? &json_.at(key) : nullptr;
        if (static_cast<size_t>(round) >= rounds.size()) return nullptr;
        const Json& scores = rounds.at(static_cast<size_t>(round));
        return scores.contains(key) ? &scores.at(key) : nullptr;
    }
    /// Round −1: without heads.
    double get(int round, const std::string& key, const std::function<double()>& measure) {
        const Json* known = find(round, key);
        if (known && known->is_number()) return known->get<double>();
        const double score = measure();
        if (round < 0)
            json_[key] = score;
        else
            json_["rounds"][static_cast<size_t>(round)][key] = score;
        const std::string text = json_.dump(1);
        if (!path_.empty()) write_file(path_, std::as_bytes(std::span(text)));
        return score;
    }

  private:
    std::filesystem::path path_;
    Json json_;
};

double mean(const std::vector<double>& x) {
    return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

std::vector<HeadStrength> heads_of(const std::vector<Trial>& trials) {
    std::vector<HeadStrength> heads;
    for (const Trial& trial : trials) heads.push_back(trial.head);
    return heads;
}

}  // namespace

std::vector<Image> HeadHunt::draw(vk::Stream& stream, const Model& model, const Request& request,
                                  const std::vector<HeadStrength>& heads) {
    TextToImage::Request picture = request.picture;
    picture.allow_blank = true;  // scored like others
    picture.guidance = guidance_of(picture);
    if (!heads.empty())
        picture.guidance.terms.push_back(
            {.kind = GuidanceKind::softpag, .scale = request.scale, .strengths = heads});
    auto images = TextToImage::run(stream, model, picture);
    for (Image& image : images) image = as_saved(image);
    return images;
}

HeadHunt::Result HeadHunt::run(vk::Stream& stream, const Model& model, const Request& request) {
    const auto& config = model.dit.config();
    require(request.picture.each_prompt.size() == request.picture.seeds.size() &&
                !request.picture.seeds.empty(),
            "[headhunt] {} prompts and {} seeds found, expected as many of each",
            request.picture.each_prompt.size(), request.picture.seeds.size());
    for (const int64_t block : request.blocks)
        require(block >= 0 && block < config.layers,
                "[headhunt] block {} found, but the model's are 0 to {}", block, config.layers - 1);
    std::vector<HeadStrength> left;
    for (int64_t layer = 0; layer < config.layers; ++layer)
        if (request.blocks.empty() ||
            std::count(request.blocks.begin(), request.blocks.end(), layer) > 0)
            for (int64_t head = 0; head < config.heads; ++head)
                left.push_back({layer, head, request.u});
    const auto all = static_cast<int>(left.size());
    require(request.rounds >= 1 && request.top >= 1 && request.rounds * request.top <= all,
            "[headhunt] {} rounds of {} heads found, expected at most the {} heads to try",
            request.rounds, request.top, all);
    const auto measure = [&](const std::vector<HeadStrength>& heads) {
        return mean(request.score(draw(stream, model, request, heads)));
    };

    State state(request, model);
    Result result;
    // Each round has fewer left; and one trial without any. Those of the file take no time.
    int total = 1, done = 0;
    for (int round = 0; round < request.rounds; ++round) total += all - round * request.top;
    const auto trial = [&](int round, const std::string& key,
                           const std::vector<HeadStrength>& heads) {
        if (request.picture.cancel && *request.picture.cancel) throw Cancelled();
        const bool known = state.find(round, key) != nullptr;
        const double score = state.get(round, key, [&] { return measure(heads); });
        if (known)
            --total;
        else
            ++done;
        if (request.on_trial && !known) request.on_trial(done, total);
        return score;
    };
    result.score_without = trial(-1, "without", {});
    for (int round = 0; round < request.rounds; ++round) {
        std::vector<Trial> trials;
        for (const HeadStrength& head : left) {
            auto heads = heads_of(result.chosen);
            heads.push_back(head);
            trials.push_back(
                {head, trial(round, fmt::format("{}.{}", head.layer, head.head), heads)});
        }
        std::stable_sort(trials.begin(), trials.end(),
                         [](const Trial& a, const Trial& b) { return a.score > b.score; });
        for (int i = 0; i < request.top; ++i) {
            const Trial& best = trials[static_cast<size_t>(i)];
            result.chosen.push_back(best);
            std::erase_if(left, [&](const HeadStrength& head) {
                return head.layer == best.head.layer && head.head == best.head.head;
            });
        }
        result.rounds.push_back(std::move(trials));
    }
    return result;
}

}  // namespace fovea
