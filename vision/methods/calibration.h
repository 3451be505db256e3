#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/patterns/reordered.h"
#include "vision/methods/method.h"

/// PAROAttention's offline step: where attention is, measured on a few clips, gives each head an
/// order of axes and each range of steps a block mask. docs/video-patterns.md says how, and what
/// the paper leaves open.
namespace fovea {

/// Pooled attention maps of one run of dense attention after another: for every order of axes the
/// share of attention by blocks, never a full map. Add each run's to one Calibrator.
struct MassSettings {
    std::array<uint32_t, 3> grid{};  ///< frames, rows, columns of tokens
    int64_t layers = 0, heads = 0;
    uint32_t block = 16;  ///< tokens
    /// Where ranges of steps end, as shares of all steps, ascending to 1.
    std::vector<float> range_ends{0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 1};

    size_t range_of(int step, int steps) const;
    uint32_t blocks() const;
};
/// Throws Error for what cannot be: blocks larger than the clip, ranges that do not ascend to 1.
void validate(const MassSettings& settings);

/// What a calibration chose.
struct Calibration {
    MassSettings settings;
    std::vector<AxisOrder> orders;             // (layers, heads)
    std::vector<uint8_t> masks;                // (ranges, layers, heads, blocks, blocks), 0 or 1
    std::map<std::string, std::string> notes;  ///< what it was made from, for people

    /// Of a layer at a step.
    Pattern pattern(int64_t layer, int step, int steps) const;
    /// All of them made once, as schedules want it.
    PatternSchedule schedule() const;
    double density(size_t range) const;
    double density() const;  ///< of all steps
};

/// Dense attention that measures: of each range its first step and the one in its middle.
class Calibrator final : public AttentionMethod {
  public:
    explicit Calibrator(MassSettings settings);
    ~Calibrator() override;

    /// A run begins with step 0.
    void begin_step(int step, int steps) override;
    Tensor attention(vk::Stream& stream, const SelfAttention& x) override;
    double density(vk::Stream&) override { return 1; }

    /// The order of each head: the one in which its densest blocks hold most of its attention at
    /// this density. The masks: of all blocks of all heads, layers and steps those with the largest
    /// share, and each row's largest, until `density` of them are kept, in as many steps as were
    /// measured. `from`: steps before this share of all are dense and count for nothing. Throws
    /// Error without a run.
    Calibration choose(double density, float from = 0) const;
    /// Mean share of attention that the kept blocks hold.
    double kept_mass(const Calibration& calibration) const;

  private:
    struct Masses;
    std::unique_ptr<Masses> masses_;
};

/// Safetensors: `orders` (layers, heads) and `masks` in bits, with everything else as JSON in the
/// metadata. Throws Error.
void save_calibration(const std::filesystem::path& path, const Calibration& calibration);
/// Nothing in the file is believed: Error says what was found and expected.
Calibration load_calibration(const std::filesystem::path& path);

}  // namespace fovea
