#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/ops/attention.h"
#include "backend/patterns/pattern.h"
#include "vision/weights.h"

/// An attention problem in a safetensors file, with or without its expected result: tensors q, k, v
/// and optionally k_extra, v_extra, block_mask, o, lse; the pattern as JSON in the metadata entry
/// `spec`. docs/attention-cases.md has the format.
namespace fovea {

struct HostTensor {
    Shape shape;
    std::vector<float> values;
    explicit operator bool() const { return !shape.empty(); }
};

struct AttentionCase {
    std::string spec;          ///< as in the file
    std::string pattern_type;  ///< "dense", "neighborhood", …
    Pattern pattern;
    float scale = 0;  ///< 0: head_dim^-1/2
    HostTensor q, k, v;
    HostTensor k_extra, v_extra;  ///< absent where the file has none
    HostTensor perturb;           // (heads)
    HostTensor o, lse;            ///< expected
    /// Blocks of the file's mask that the pattern built from its parameters has otherwise (radial).
    size_t wrong_blocks = 0;

    std::string shape_text() const;  ///< "1×4×256×64", with × keys where they differ in number
};

/// Throws Error that says what was found and what is expected: nothing in the file is believed.
AttentionCase read_attention_case(const Weights& file);

/// What is allowed of |found − expected|: fp32 computation, fp16 storage with fp32 sums, or int8
/// scores of logits near 1.
struct AttentionTolerance {
    float o, lse;
};
AttentionTolerance attention_tolerance(DType dtype, ScorePrecision scores = ScorePrecision::stored);

struct AttentionCaseResult {
    HostTensor o, lse;
    std::optional<float> max_err_o, max_err_lse;  ///< largest difference; infinite where NaN
    bool ok = true;                               ///< whatever is expected is met
};

/// Runs a case with tensors of this type. Throws Error where the path cannot.
AttentionCaseResult run_attention_case(vk::Stream& stream, const AttentionCase& c, DType dtype,
                                       AttentionPath path = AttentionPath::automatic,
                                       ScorePrecision scores = ScorePrecision::stored);

}  // namespace fovea
