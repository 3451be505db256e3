#include "vision/guidance/guidance.h"

#include <algorithm>

#include "backend/error.h"

namespace fovea {

const char* name_of(GuidanceKind kind) {
    constexpr const char* kNames[] = {"cfg", "apg", "cfgzero", "pag", "softpag", "seg", "skip"};
    return kNames[static_cast<size_t>(kind)];
}

bool GuidanceTerm::in_range(int step, int steps) const {
    const float share = static_cast<float>(step) / static_cast<float>(steps);
    return share >= from && share < to;
}

bool GuidanceTerm::is_due(int step, int steps) const {
    if (of_text()) return scale != 1 && in_range(step, steps);
    if (scale == 0 || !in_range(step, steps)) return false;
    int first = 0;
    while (!in_range(first, steps)) ++first;
    return (step - first) % every == 0;
}

const GuidanceTerm* Guidance::of_text() const {
    const auto found = std::find_if(terms.begin(), terms.end(),
                                    [](const GuidanceTerm& term) { return term.of_text(); });
    return found == terms.end() ? nullptr : &*found;
}

int Guidance::zero_steps() const {
    const GuidanceTerm* term = of_text();
    return term && term->kind == GuidanceKind::cfgzero ? term->zero : 0;
}

int64_t Guidance::most_branches() const {
    return 1 + std::count_if(terms.begin(), terms.end(), [](const GuidanceTerm& term) {
               return term.scale != (term.of_text() ? 1.0f : 0.0f);
           });
}

bool Guidance::varies(int steps) const {
    return std::any_of(terms.begin(), terms.end(), [&](const GuidanceTerm& term) {
        for (int i = 1; i < steps; ++i)
            if (term.is_due(i, steps) != term.is_due(0, steps)) return true;
        return false;
    });
}

Guidance cfg_guidance(float scale) {
    return {.terms = {{.kind = GuidanceKind::cfg, .scale = scale}}};
}

std::vector<int64_t> default_blocks(int64_t layers) {
    if (layers < 2) return {0};
    return {layers / 2 - 1, layers / 2};
}

void validate(const Guidance& guidance, const DitConfig& model) {
    const auto check = [](const GuidanceTerm& term, const char* what, int64_t value, int64_t end) {
        require(value >= 0 && value < end,
                "[guidance] {}: {} {} found, but the model's are 0 to {}", name_of(term.kind), what,
                value, end - 1);
    };
    for (const GuidanceTerm& term : guidance.terms) {
        for (const int64_t block : term.blocks) check(term, "block", block, model.layers);
        for (const int64_t head : term.heads) check(term, "head", head, model.heads);
        for (const HeadStrength& one : term.strengths) {
            check(term, "layer", one.layer, model.layers);
            check(term, "head", one.head, model.heads);
        }
    }
}

}  // namespace fovea
