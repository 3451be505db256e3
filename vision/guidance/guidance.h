#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "vision/models/dit.h"

/// What steers a denoiser's velocities without training: a list of terms, each with a scale, layers
/// or heads and a range of steps. docs/guidance.md has the formulas.
namespace fovea {

enum class GuidanceKind {
    cfg,      ///< classifier-free guidance: away from what has no prompt
    apg,      ///< the same, projected and clipped (arXiv 2410.02416)
    cfgzero,  ///< the same, with the best scale of what has no prompt (arXiv 2503.18886)
    pag,      ///< away from self-attention as identity (arXiv 2403.17377)
    softpag,  ///< away from attention drawn towards identity, head by head (HeadHunter)
    seg,      ///< away from blurred queries (arXiv 2408.00760)
    skip,     ///< away from what lacks some layers
};

const char* name_of(GuidanceKind kind);

/// Of one head: o = (1 − u) · attention + u · v.
struct HeadStrength {
    int64_t layer = 0, head = 0;
    float u = 1;
};

struct GuidanceTerm {
    GuidanceKind kind = GuidanceKind::cfg;
    float scale = 1;
    float from = 0, to = 1;  ///< steps i of n with from ≤ i/n < to
    int every = 1;           ///< steps from one that computes the branch to the next; what it said
                             ///< holds between them
    std::vector<int64_t> blocks;          ///< layers; empty: default_blocks()
    std::vector<int64_t> heads;           ///< of each block; empty: all
    float u = 1;                          ///< of all these heads
    std::vector<HeadStrength> strengths;  ///< of heads=FILE, instead of the three above
    float sigma = std::numeric_limits<float>::infinity();  ///< seg: of the blur, in tokens
    float eta = 0;       ///< apg: what is left of the part along the estimate
    float beta = -0.5f;  ///< apg: momentum over the steps
    float norm = 0;      ///< apg: most that the difference may be long; 0: any length
    int zero = 1;        ///< cfgzero: first steps whose velocity is 0

    /// cfg, apg or cfgzero: of which there is at most one. The others have a perturbed branch each.
    bool of_text() const { return kind <= GuidanceKind::cfgzero; }
    bool in_range(int step, int steps) const;
    /// Whether the step computes the term's branch.
    bool is_due(int step, int steps) const;
};

struct Guidance {
    std::vector<GuidanceTerm> terms;

    const GuidanceTerm* of_text() const;  ///< null: none
    /// First steps that change nothing and need no model.
    int zero_steps() const;
    /// Most branches that a step computes, the prompt's own with them.
    int64_t most_branches() const;
    /// Whether the branches differ from one of so many steps to another.
    bool varies(int steps) const;
};

/// "cfg:4,pag:2@blocks=3-5,steps=0.0-0.7": terms and, after @, their options, all apart by commas.
/// Reads files of heads. Throws Error that says what is expected; guidance_help() has the rest.
Guidance parse_guidance(const std::string& text);
/// cfg alone.
Guidance cfg_guidance(float scale);

/// Throws Error where layers or heads are none of the model's.
void validate(const Guidance& guidance, const DitConfig& model);

/// The middle two.
std::vector<int64_t> default_blocks(int64_t layers);

/// A line each.
std::vector<std::string> guidance_help();

struct HeadList {
    float scale = 3;  ///< that they were chosen at: of a term that names none
    std::vector<HeadStrength> heads;
};
/// {"scale": 3, "heads": [{"layer": 3, "head": 1, "u": 1}, …]}, as fovea headhunt writes it.
HeadList read_heads(const std::string& path);

}  // namespace fovea
