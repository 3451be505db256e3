#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "backend/error.h"
#include "vision/guidance/guidance.h"

namespace fovea {
namespace {

constexpr GuidanceKind kKinds[] = {GuidanceKind::cfg, GuidanceKind::apg,     GuidanceKind::cfgzero,
                                   GuidanceKind::pag, GuidanceKind::softpag, GuidanceKind::seg,
                                   GuidanceKind::skip};

/// Names of the options of a kind.
std::vector<std::string_view> options_of(GuidanceKind kind) {
    switch (kind) {
        case GuidanceKind::cfg:
            return {"steps"};
        case GuidanceKind::apg:
            return {"eta", "beta", "norm", "steps"};
        case GuidanceKind::cfgzero:
            return {"zero", "steps"};
        case GuidanceKind::pag:
            return {"blocks", "heads", "steps", "every"};
        case GuidanceKind::softpag:
            return {"blocks", "heads", "u", "steps", "every"};
        case GuidanceKind::seg:
            return {"blocks", "heads", "sigma", "steps", "every"};
        case GuidanceKind::skip:
            return {"blocks", "steps", "every"};
    }
    return {};
}

/// Reads one term; `text` begins its errors.
class TermParser {
  public:
    explicit TermParser(std::string_view text) : text_(text) {
        const size_t colon = text.find(':');
        const std::string_view name = text.substr(0, colon);
        const auto kind = std::find_if(std::begin(kKinds), std::end(kKinds),
                                       [&](GuidanceKind k) { return name == name_of(k); });
        require(kind != std::end(kKinds),
                "[guidance] \"{}\" found, expected one of cfg, apg, cfgzero, pag, softpag, seg, "
                "skip and its scale, as in cfg:4,pag:2",
                text);
        term_.kind = *kind;
        require(colon != std::string_view::npos,
                "[guidance] \"{0}\" has no scale, expected one, as in {0}:3", text);
        if (*kind == GuidanceKind::softpag) term_.u = 0.5f;
        const std::string_view rest = text.substr(colon + 1);
        constexpr std::string_view kHeads = "heads=";
        if (*kind == GuidanceKind::softpag && rest.starts_with(kHeads)) {
            heads(rest.substr(kHeads.size()));
            require(!term_.strengths.empty(),
                    "[guidance] \"{}\": heads found where a scale is expected, as in "
                    "softpag:3@heads=0+2; a file of heads may do without",
                    text);
        } else {
            term_.scale = number<float>(rest, "a scale");
            require(std::isfinite(term_.scale) && term_.scale >= 0,
                    "[guidance] \"{}\": scale {} found, expected 0 or more", text, rest);
            scale_given_ = true;
        }
    }

    void option(std::string_view name, std::string_view value) {
        const auto known = options_of(term_.kind);
        require(std::find(known.begin(), known.end(), name) != known.end(),
                "[guidance] \"{}\": option {} found, expected {}", text_, name,
                fmt::join(known, ", "));
        if (name == "steps") return steps(value);
        if (name == "blocks") return void(term_.blocks = list(value, "blocks"));
        if (name == "heads") return heads(value);
        if (name == "every") return whole(term_.every, value, 1, "every");
        if (name == "zero") return whole(term_.zero, value, 0, "zero");
        if (name == "eta") return real(term_.eta, value);
        if (name == "beta") return real(term_.beta, value);
        if (name == "norm") return positive(term_.norm, value, name);
        if (name == "sigma") return positive(term_.sigma, value, name);
        term_.u = number<float>(value, "a number");
        require(term_.u > 0 && term_.u <= 1,
                "[guidance] \"{}\": u {} found, expected above 0 and at most 1", text_, term_.u);
    }

    GuidanceTerm finish() const {
        require(term_.strengths.empty() || (term_.blocks.empty() && term_.u == 0.5f),
                "[guidance] \"{}\": heads of a file found beside blocks or u, expected the file "
                "alone: it says both",
                text_);
        return term_;
    }

  private:
    template <typename T>
    T number(std::string_view text, const char* what) const {
        T value{};
        const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
        require(code == std::errc() && end == text.data() + text.size() && value == value,
                "[guidance] \"{}\": \"{}\" found where {} is expected", text_, text, what);
        return value;
    }
    void real(float& to, std::string_view value) const {
        to = number<float>(value, "a number");
        require(std::isfinite(to), "[guidance] \"{}\": {} found, expected a finite number", text_,
                value);
    }
    void positive(float& to, std::string_view value, std::string_view name) const {
        to = number<float>(value, "a number");
        require(to > 0, "[guidance] \"{}\": {} {} found, expected above 0", text_, name, value);
    }
    void whole(int& to, std::string_view value, int least, const char* name) const {
        to = number<int>(value, "a whole number");
        require(to >= least, "[guidance] \"{}\": {} {} found, expected {} or more", text_, name, to,
                least);
    }
    void steps(std::string_view value) {
        const size_t dash = value.find('-');
        require(dash != std::string_view::npos,
                "[guidance] \"{}\": steps {} found, expected a range of shares, as in 0.0-0.7",
                text_, value);
        term_.from = number<float>(value.substr(0, dash), "a share");
        term_.to = number<float>(value.substr(dash + 1), "a share");
        require(term_.from >= 0 && term_.from < term_.to && term_.to <= 1,
                "[guidance] \"{}\": steps {} found, expected shares that ascend from 0 to 1", text_,
                value);
    }
    /// "2", "3-5", "0+2-3"
    std::vector<int64_t> list(std::string_view value, const char* what) const {
        std::vector<int64_t> numbers;
        size_t begin = 0;
        while (begin <= value.size()) {
            const size_t end = std::min(value.find('+', begin), value.size());
            const std::string_view part = value.substr(begin, end - begin);
            const size_t dash = part.find('-');
            const auto first = number<int64_t>(part.substr(0, dash), what);
            const auto last = dash == std::string_view::npos
                                  ? first
                                  : number<int64_t>(part.substr(dash + 1), what);
            constexpr int64_t kMost = 10000;
            require(first >= 0 && first <= last && last < kMost,
                    "[guidance] \"{}\": {} found, expected {} as in 3-5 or 2+5", text_, part, what);
            for (int64_t i = first; i <= last; ++i) numbers.push_back(i);
            begin = end + 1;
        }
        std::sort(numbers.begin(), numbers.end());
        numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
        return numbers;
    }
    void heads(std::string_view value) {
        const bool numbers = value.find_first_not_of("0123456789+-") == std::string_view::npos;
        if (numbers) return void(term_.heads = list(value, "heads"));
        require(term_.kind == GuidanceKind::softpag,
                "[guidance] \"{}\": heads={} found, expected numbers as in 0+2; files of heads "
                "are for softpag",
                text_, value);
        const HeadList list = read_heads(std::string(value));
        term_.strengths = list.heads;
        if (!scale_given_) term_.scale = list.scale;
    }

    std::string_view text_;
    GuidanceTerm term_;
    bool scale_given_ = false;
};

bool is_option(std::string_view item) {
    const size_t equals = item.find('=');
    return equals != std::string_view::npos && equals > 0 &&
           std::all_of(item.begin(), item.begin() + static_cast<std::ptrdiff_t>(equals),
                       [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace

Guidance parse_guidance(const std::string& text) {
    Guidance guidance;
    std::vector<TermParser> terms;
    const auto add_option = [&](std::string_view item) {
        require(is_option(item),
                "[guidance] \"{}\": \"{}\" found where name=value is expected, as in blocks=3-5",
                text, item);
        require(!terms.empty(),
                "[guidance] \"{}\" begins with an option, expected a term, as in pag:2@{}", text,
                item);
        const size_t equals = item.find('=');
        terms.back().option(item.substr(0, equals), item.substr(equals + 1));
    };
    for (size_t begin = 0; begin <= text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        const std::string_view item = std::string_view(text).substr(begin, end - begin);
        begin = end + 1;
        if (is_option(item)) {
            add_option(item);
            continue;
        }
        const size_t at = item.find('@');
        terms.emplace_back(item.substr(0, at));
        if (at != std::string_view::npos) add_option(item.substr(at + 1));
    }
    for (const TermParser& term : terms) guidance.terms.push_back(term.finish());
    const auto of_text = std::count_if(guidance.terms.begin(), guidance.terms.end(),
                                       [](const GuidanceTerm& term) { return term.of_text(); });
    require(of_text <= 1,
            "[guidance] \"{}\": {} of cfg, apg and cfgzero found, expected at most one", text,
            of_text);
    return guidance;
}

HeadList read_heads(const std::string& path) {
    std::ifstream file(path);
    require(file.good(), "[guidance] heads={} cannot be read; fovea headhunt writes such files",
            path);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    const auto good = [](const nlohmann::json& one) {
        return one.is_object() && one.contains("layer") && one.at("layer").is_number_integer() &&
               one.contains("head") && one.at("head").is_number_integer() &&
               (!one.contains("u") || one.at("u").is_number());
    };
    const bool is_list = json.is_object() && json.contains("heads") && json.at("heads").is_array();
    require(is_list && std::all_of(json.at("heads").begin(), json.at("heads").end(), good),
            "[guidance] {} is no list of heads, expected JSON as {{\"heads\": [{{\"layer\": 3, "
            "\"head\": 1, \"u\": 1}}]}}",
            path);
    HeadList list;
    if (json.contains("scale") && json.at("scale").is_number()) json.at("scale").get_to(list.scale);
    for (const auto& one : json.at("heads")) {
        list.heads.push_back(
            {.layer = one.at("layer"), .head = one.at("head"), .u = one.value("u", 1.0f)});
        require(list.heads.back().u > 0 && list.heads.back().u <= 1,
                "[guidance] {}: u {} found, expected above 0 and at most 1", path,
                list.heads.back().u);
    }
    require(!list.heads.empty(), "[guidance] {} lists no heads, expected one at least", path);
    return list;
}

std::vector<std::string> guidance_help() {
    return {
        "cfg:S             classifier-free guidance: S times as far from no prompt as the prompt",
        "apg:S             the same, projected: eta=0, momentum beta=-0.5, norm=LENGTH at most",
        "cfgzero:S         CFG-Zero*: no prompt scaled to fit; the first zero=1 steps stand still",
        "pag:S             away from self-attention that sees only itself",
        "softpag:S         the same in part: u=0.5; softpag:heads=FILE takes what fovea headhunt "
        "found",
        "seg:S             away from blurred queries: sigma=TOKENS (default: inf, their mean)",
        "skip:S            away from a model without these blocks",
        "All: steps=0.0-0.7, shares of the steps. pag to skip: blocks=3-5 or 2+5 (default: the",
        "middle two), heads=0+2 (not skip), every=2: computed every other step, held between",
        "Beside cfg, pag:1@steps=0-0.6 draws best for its price",
    };
}

}  // namespace fovea
