#pragma once

#include <map>
#include <vector>

#include "vision/guidance/guidance.h"

namespace fovea {

/// What the branches of one evaluation said, f32 of one shape (samples, …).
struct Velocities {
    Tensor prompted;
    Tensor unprompted;                   ///< absent: the text's term was not due
    std::map<size_t, Tensor> perturbed;  ///< by the term's place, of terms that were due
};

/// Makes one velocity of those of the branches, step after step: momentum and what terms with
/// `every` hold are kept from call to call.
class Combination {
  public:
    explicit Combination(Guidance guidance) : guidance_(std::move(guidance)) {}

    /// z: the latents that the velocities are of, at time t > 0. Waits where a term needs products
    /// of whole samples (apg, cfgzero).
    ///   cfg      v = v_u + S (v_c − v_u)
    ///   cfgzero  v = s v_u + S (v_c − s v_u), s = ⟨v_c, v_u⟩ / ‖v_u‖²
    ///   apg      D = z − t v; Δ = D_c − D_u + beta · Δ of the step before, shortened to `norm`;
    ///            D = D_c + (S − 1) (Δ − (1 − eta) D_c ⟨Δ, D_c⟩ / ‖D_c‖²)
    ///   others   v + S (v_c − v_p)
    Tensor velocity(vk::Stream& stream, const Tensor& z, float t, int step, int steps,
                    const Velocities& of);

  private:
    Tensor by_text(vk::Stream& stream, const Tensor& z, float t, const Velocities& of);
    Tensor projected(vk::Stream& stream, const GuidanceTerm& term, const Tensor& z, float t,
                     const Velocities& of);

    Guidance guidance_;
    Tensor average_;                 ///< Δ with its momentum
    std::map<size_t, Tensor> held_;  ///< v_c − v_p of terms with `every`
};

}  // namespace fovea
