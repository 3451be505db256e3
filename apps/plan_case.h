#pragma once

#include <optional>
#include <string>
#include <vector>

#include "backend/ops/attention_rate.h"
#include "backend/patterns/perfect.h"
#include "backend/patterns/planner.h"

/// What `fovea plan` computes and prints.
namespace fovea::apps {

struct PlanCase {
    std::string name;  ///< spec or file
    Grid grid;         ///< empty: blocks of a mask
    Pattern pattern;
    std::optional<Neighborhood> window;  ///< the pattern, if it is one
    uint32_t q_len, kv_len, extra, heads, head_dim, v_dim, batch;
    DType dtype;
    TileShape tile;
    std::vector<BoxCost> boxes;  ///< the best first; empty: tiles are not boxes
    std::vector<PerfectSetting> settings;
    Plan plan;
    double plan_seconds;

    /// Of all heads of one batch: lists are shared by heads that are alike.
    struct Totals {
        double kept_pairs = 0, visited = 0, full = 0, all = 0;
    };
    Totals totals() const;
    uint64_t plan_bytes() const;
    uint64_t tensor_bytes() const;  ///< q, k, v, o and the extra k, v
    double all_pairs() const;       ///< of all heads of one batch
    double flops(double pairs) const { return 2.0 * pairs * (head_dim + v_dim) * batch; }
};

/// Where times come from: measured rates, or a peak and the share of it that attention reaches.
struct PlanModel {
    std::string source;
    AttentionRate rate;
};

struct Prediction {
    double dense, full, partial;  ///< seconds; the pattern takes full + partial
    double total() const { return full + partial; }
};
Prediction predict(const PlanCase& c, const PlanModel& model);

/// `model` may be absent, with a reason to print.
void print_plan(const PlanCase& c, const PlanModel* model, const std::string& no_model,
                size_t boxes);
void print_plan_json(const PlanCase& c, const PlanModel* model, const std::string& no_model,
                     size_t boxes);

}  // namespace fovea::apps
