#pragma once
/// Ops on single elements: the specification of backend/ops/elementwise.h.

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace fovea::reference {

inline float soft_clamp(float x, float limit) {
    return static_cast<float>(limit * std::tanh(double{x} / limit));
}

/// f of every element.
template <typename F>
std::vector<float> map(std::span<const float> x, F f) {
    std::vector<float> y;
    for (const float value : x) y.push_back(f(value));
    return y;
}

/// b repeats over a.
inline std::vector<float> add(std::span<const float> a, std::span<const float> b) {
    std::vector<float> y;
    for (size_t i = 0; i < a.size(); ++i) y.push_back(a[i] + b[i % b.size()]);
    return y;
}

inline std::vector<float> multiply(std::span<const float> a, std::span<const float> b) {
    std::vector<float> y;
    for (size_t i = 0; i < a.size(); ++i) y.push_back(a[i] * b[i % b.size()]);
    return y;
}

/// table (r, n) and m (batch, m_rows, n), m_rows r or 1 → (r, batch, n)
inline std::vector<float> broadcast_add(std::span<const float> table, std::span<const float> m,
                                        size_t n, size_t batch) {
    const size_t rows = table.size() / n, m_rows = m.size() / n / batch;
    std::vector<float> y;
    for (size_t r = 0; r < rows; ++r)
        for (size_t b = 0; b < batch; ++b)
            for (size_t j = 0; j < n; ++j)
                y.push_back(table[r * n + j] + m[(b * m_rows + r % m_rows) * n + j]);
    return y;
}

}  // namespace fovea::reference
