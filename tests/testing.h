#pragma once
/// Shared by all device tests: one device, seeded inputs, tolerances in one place, comparison that
/// says where.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backend/half.h"
#include "backend/tensor.h"

namespace fovea::testing {

/// The device under test (FOVEA_DEVICE). A machine without one fails: tests that all skip prove
/// nothing.
/// Once for all tests of a program.
inline vk::Device& device() {
    static vk::Device shared;
    struct AtEnd : ::testing::EmptyTestEventListener {
        void OnTestProgramEnd(const ::testing::UnitTest&) override { shared.finish_pipelines(); }
    };
    static const bool listens = [] {
        ::testing::UnitTest::GetInstance()->listeners().Append(new AtEnd);
        return true;
    }();
    static_cast<void>(listens);
    return shared;
}

/// Seeded normal values, rounded through the storage type so that reference and device see the same
/// inputs.
inline std::vector<float> random_values(size_t count, uint32_t seed, DType dtype = DType::f32,
                                        float scale = 1) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> values(count);
    for (float& value : values) {
        value = normal(generator);
        if (dtype == DType::f16) value = half_to_float(float_to_half(value));
    }
    return values;
}

struct Tolerance {
    float absolute, relative;
};

/// fp32 sums in another order; fp16 storage of inputs and outputs with fp32 sums.
inline Tolerance tolerance(DType dtype) {
    return dtype == DType::f16 ? Tolerance{2e-3f, 2e-3f} : Tolerance{2e-5f, 2e-5f};
}

/// Equal within the tolerance; a failure prints the worst element. NaN never passes.
/// Between a sample alone and in a batch. A CPU's bits are the same; on GPUs the tiles of products
/// follow the number of rows, and sums the tiles.
inline Tolerance tolerance_of_batches(DType dtype) {
    if (device().info().type == vk::DeviceType::cpu) return {0, 0};
    return dtype == DType::f16 ? Tolerance{1e-2f, 4e-3f} : Tolerance{1e-4f, 1e-4f};
}

inline ::testing::AssertionResult close(std::span<const float> found,
                                        std::span<const float> expected, Tolerance allowed) {
    if (found.size() != expected.size())
        return ::testing::AssertionFailure()
               << found.size() << " values, expected " << expected.size();
    size_t worst = 0, bad = 0;
    float worst_excess = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        const float excess = std::abs(found[i] - expected[i]) -
                             (allowed.absolute + allowed.relative * std::abs(expected[i]));
        if (excess <= 0) continue;
        if (bad++ == 0 || excess > worst_excess || std::isnan(excess)) {
            worst = i;
            worst_excess = excess;
        }
    }
    if (bad == 0) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure()
           << bad << " of " << found.size() << " values differ, worst at [" << worst
           << "]: " << found[worst] << ", expected " << expected[worst];
}

/// Parity data beside the project (FOVEA_SHARED, default ../shared); empty when absent.
inline std::string shared_folder() {
    const char* text = std::getenv("FOVEA_SHARED");
    return text ? text : FOVEA_SOURCE_DIR "/../shared";
}

}  // namespace fovea::testing
