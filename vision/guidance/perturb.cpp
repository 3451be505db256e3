#include "vision/guidance/perturb.h"

#include <algorithm>

#include "backend/error.h"
#include "backend/ops/blur.h"
#include "vision/layers.h"

namespace fovea {
namespace {

// Layers with the strength of each head.
std::map<int64_t, std::vector<float>> strengths_of(const GuidanceTerm& term,
                                                   const DitConfig& model) {
    std::map<int64_t, std::vector<float>> layers;
    const auto set = [&](int64_t layer, int64_t head, float u) {
        auto& heads = layers[layer];
        heads.resize(static_cast<size_t>(model.heads));
        heads[static_cast<size_t>(head)] = u;
    };
    for (const HeadStrength& one : term.strengths) set(one.layer, one.head, one.u);
    if (!term.strengths.empty()) return layers;
    for (const int64_t block : term.blocks.empty() ? default_blocks(model.layers) : term.blocks)
        if (term.heads.empty())
            for (int64_t head = 0; head < model.heads; ++head) set(block, head, term.u);
        else
            for (const int64_t head : term.heads) set(block, head, term.u);
    return layers;
}

bool is_whole(const std::vector<float>& heads) {
    return std::all_of(heads.begin(), heads.end(), [](float u) { return u == 1; });
}

}  // namespace

bool is_partial(const GuidanceTerm& term, const DitConfig& model) {
    if (term.kind != GuidanceKind::pag && term.kind != GuidanceKind::softpag) return false;
    const auto layers = strengths_of(term, model);
    return std::any_of(layers.begin(), layers.end(),
                       [](const auto& entry) { return !is_whole(entry.second); });
}

Perturbation::Perturbation(vk::Stream& stream, const GuidanceTerm& term, const DitConfig& model) {
    validate({.terms = {term}}, model);
    require(!term.of_text(), "[guidance] {} has no perturbed branch", name_of(term.kind));
    if (term.kind == GuidanceKind::skip) {
        skipped_ = term.blocks.empty() ? default_blocks(model.layers) : term.blocks;
        return;
    }
    if (term.kind == GuidanceKind::seg) sigma_ = term.sigma;
    for (const auto& [layer, heads] : strengths_of(term, model))
        heads_[layer] = {upload(stream, heads, {model.heads}, DType::f32), is_whole(heads)};
}

int64_t Perturbation::first_layer() const {
    return skipped_.empty() ? heads_.begin()->first : skipped_.front();
}

Tensor Perturbation::attention(vk::Stream& stream, const DitHooks& base, const DitGrid& grid,
                               int64_t layer, const Tensor& q, const Tensor& k,
                               const Tensor& v) const {
    const Heads& heads = heads_.at(layer);
    if (sigma_ > 0)
        return base.attention(
            stream, layer,
            blur_tokens(stream, q, {.grid = grid, .sigma = sigma_, .heads = heads.strengths}), k,
            v);
    // No score is computed, whatever the pattern.
    if (heads.all) return attend(stream, q, k, v, dense(), {.perturb = heads.strengths});
    require(static_cast<bool>(base.perturbed),
            "[guidance] strengths of single heads found beside a method that knows none: use pag, "
            "or another --pattern");
    return base.perturbed(stream, layer, q, k, v, heads.strengths);
}

DitHooks with_branches(DitHooks base, const BranchLayout& layout, const DitGrid& grid,
                       bool shared) {
    if (layout.perturbed.empty()) return base;
    DitHooks hooks = base;
    for (const auto& one : layout.perturbed)
        hooks.branches.push_back({.layer = shared ? one->first_layer() : 0,
                                  .first = 0,
                                  .count = layout.count,
                                  .skipped = one->skipped()});
    hooks.attention = [base, layout, grid](vk::Stream& stream, int64_t layer, const Tensor& q,
                                           const Tensor& k, const Tensor& v) {
        // Neighbours that are not perturbed here go together.
        struct Run {
            int64_t first, count;
            const Perturbation* by;
        };
        std::vector<Run> runs{{0, layout.base_rows(), nullptr}};
        int64_t first = layout.base_rows();
        for (const auto& one : layout.perturbed) {
            if (first >= q.dim(0)) break;  // not there yet, or not in this layer
            const Perturbation* by = one->changes_attention(layer) ? one.get() : nullptr;
            if (!by && !runs.back().by)
                runs.back().count += layout.count;
            else
                runs.push_back({first, layout.count, by});
            first += layout.count;
        }
        if (runs.size() == 1) return base.attention(stream, layer, q, k, v);
        Tensor o;
        for (const Run& run : runs) {
            const auto rows = [&](const Tensor& x) { return x.slice(run.first, run.count); };
            const Tensor part =
                run.by ? run.by->attention(stream, base, grid, layer, rows(q), rows(k), rows(v))
                       : base.attention(stream, layer, rows(q), rows(k), rows(v));
            if (!o) o = empty(stream.device(), q.shape(), q.dtype());
            stream.copy(read(part), write(rows(o)));
        }
        return o;
    };
    return hooks;
}

double mean_passes(const Guidance& guidance, const std::vector<Perturbation>& perturbations,
                   int64_t layers, int steps) {
    double work = 0;
    for (int step = guidance.zero_steps(); step < steps; ++step) {
        work += static_cast<double>(layers);
        size_t next = 0;
        for (const GuidanceTerm& term : guidance.terms) {
            const Perturbation* p = term.of_text() ? nullptr : &perturbations.at(next++);
            if (!term.is_due(step, steps)) continue;
            work += static_cast<double>(p ? layers - p->first_layer() - std::ssize(p->skipped())
                                          : layers);
        }
    }
    return work / static_cast<double>(layers * steps);
}

}  // namespace fovea
