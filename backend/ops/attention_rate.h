#pragma once

#include "backend/ops/attention.h"

namespace fovea {

/// How fast attention visits blocks on a device, in FLOP/s of 4 · head_dim a (query, key) of the
/// blocks, seen or masked. The terms of a prediction: time = Σ blocks · FLOP of a block / rate.
struct AttentionRate {
    AttentionPath path = AttentionPath::automatic;
    double dense = 0;    ///< dense attention
    double full = 0;     ///< full blocks of boxes: rows are gathered
    double partial = 0;  ///< blocks with a mask
};

/// Measured in about a second on small problems; what larger ones gain or lose by caches is not in
/// it. Throws Error where the path cannot run.
AttentionRate measure_attention(vk::Stream& stream, uint32_t head_dim, DType dtype,
                                AttentionPath path = AttentionPath::automatic);

}  // namespace fovea
