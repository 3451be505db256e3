#pragma once

#include <array>
#include <string>
#include <vector>

#include "backend/patterns/pattern.h"

/// The shapes that benchmarks know by name: those of published models, and small ones for CPUs.
namespace fovea::apps::bench {

struct AttentionShape {
    std::string set;
    uint32_t heads;
    std::vector<uint32_t> grid;  ///< tokens an axis; one axis where text or padding is among them
    uint32_t head_dim;
    uint32_t batch = 1;
    std::vector<std::string> patterns = {"dense"};  ///< run where none are asked for

    uint32_t text = 0;  ///< tokens that a pattern adds behind the grid

    uint32_t tokens() const { return static_cast<uint32_t>(Grid{grid}.tokens()) + text; }
    std::string name() const;  ///< "24x4608x128": heads, tokens, head_dim; a batch in front
};

/// m × k times k × n.
struct GemmShape {
    std::string set;
    int64_t m, k, n;
};

/// 3×3 kernels.
struct ConvShape {
    std::string set;
    int64_t size, ci, co;
    int stride = 1;
};

/// Which transformer block; blocks.h says what each computes.
enum class BlockKind { dit, wan, dual, single };

const char* name_of(BlockKind kind);

/// A published model's block, or its whole denoiser.
struct ModelShape {
    std::string set, name;
    BlockKind kind;
    std::vector<uint32_t> grid;
    uint32_t heads, head_dim, hidden;  ///< hidden: of the MLP
    uint32_t text = 0;                 ///< tokens: attended to (wan), or joined (dual, single)
    uint32_t layers = 0;               ///< of a whole denoiser, kind dit; 0: one block
    std::array<int, 3> rope_axes = {0, 0, 0};
    float rope_theta = 0;
    std::vector<std::string> patterns = {"dense"};  ///< run where none are asked for

    uint32_t tokens() const { return static_cast<uint32_t>(Grid{grid}.tokens()); }
    int64_t width() const { return int64_t{heads} * head_dim; }
    AttentionShape attention() const { return {set, heads, grid, head_dim}; }  ///< of the grid
};

/// Names as in "flux,targets", for attention HEADS:GRID:HEAD_DIM as in 24:30x48x80:128, for gemm
/// MxKxN as in 4608x3072x9216. None:
/// `small` on CPUs, everything else on GPUs. A name that no op knows is an Error that lists them.
std::vector<AttentionShape> attention_shapes(const std::vector<std::string>& names, bool cpu);
std::vector<GemmShape> gemm_shapes(const std::vector<std::string>& names, bool cpu);
std::vector<ConvShape> conv_shapes(const std::vector<std::string>& names, bool cpu);
std::vector<ModelShape> model_shapes(const std::vector<std::string>& names, bool cpu);

/// One line of help a name.
std::string shapes_help();

/// A pattern of the registry, or one of those that only a benchmark can say in a word:
/// "block_sparse:BLOCK:density=D" (blocks by chance, the diagonal kept), "reordered:BLOCK" (six
/// orders of axes in turn, a band and some rows of blocks) and "perturbed[:SHARE]" (dense).
Pattern bench_pattern(const std::string& spec, const AttentionShape& shape);

/// Of "perturbed[:SHARE]": u = 1 for the first SHARE of the heads, all where it is not said; empty
/// for every other pattern.
std::vector<float> bench_perturb(const std::string& spec, uint32_t heads);

}  // namespace fovea::apps::bench
