#include "vision/pca.h"

#include <algorithm>
#include <cmath>

#include "backend/error.h"

namespace fovea {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

// Gram-Schmidt, twice for the digits the first loses; a vector of no length becomes an axis.
void make_orthonormal(std::vector<Vector>& basis) {
    for (size_t i = 0; i < basis.size(); ++i)
        for (size_t axis = 0;; ++axis) {
            const double before = std::sqrt(dot(basis[i], basis[i]));
            for (int pass = 0; pass < 2; ++pass)
                for (size_t j = 0; j < i; ++j) {
                    const double along = dot(basis[i], basis[j]);
                    for (size_t k = 0; k < basis[i].size(); ++k) basis[i][k] -= along * basis[j][k];
                }
            const double length = std::sqrt(dot(basis[i], basis[i]));
            if (length > 1e-9 * before && length > 0) {
                for (double& value : basis[i]) value /= length;
                break;
            }
            basis[i].assign(basis[i].size(), 0);
            basis[i].at(axis) = 1;
        }
}

}  // namespace

PrincipalComponents principal_components(std::span<const float> values, int64_t width, int count) {
    const auto w = static_cast<size_t>(width);
    const size_t rows = values.size() / w;
    require(rows >= 2 && values.size() == rows * w,
            "[pca] {} values of width {} found, expected two vectors or more", values.size(),
            width);
    require(count >= 1 && count <= width, "[pca] {} components found, expected 1 to {}", count,
            width);
    Vector mean(w);
    for (size_t i = 0; i < values.size(); ++i) mean[i % w] += values[i];
    for (double& value : mean) value /= static_cast<double>(rows);
    std::vector<Vector> covariance(w, Vector(w));
    Vector row(w);
    for (size_t r = 0; r < rows; ++r) {
        for (size_t i = 0; i < w; ++i) row[i] = values[r * w + i] - mean[i];
        for (size_t i = 0; i < w; ++i)
            for (size_t j = 0; j < w; ++j)
                covariance[i][j] += row[i] * row[j] / static_cast<double>(rows);
    }

    std::vector<Vector> basis(static_cast<size_t>(count), Vector(w));
    for (size_t i = 0; i < basis.size(); ++i)  // no two alike, none of a plain pattern
        for (size_t k = 0; k < w; ++k)
            basis[i][k] = std::sin(static_cast<double>((i + 1) * (k + 1)) * 1.7 + 0.3);
    make_orthonormal(basis);
    constexpr int kRounds = 300;
    Vector variances(basis.size());
    for (int round = 0; round < kRounds; ++round) {
        for (Vector& direction : basis) {
            Vector turned(w);
            for (size_t i = 0; i < w; ++i) turned[i] = dot(covariance[i], direction);
            direction = std::move(turned);
        }
        for (size_t i = 0; i < basis.size(); ++i) variances[i] = std::sqrt(dot(basis[i], basis[i]));
        make_orthonormal(basis);
    }

    PrincipalComponents result;
    for (size_t i = 0; i < basis.size(); ++i) {
        const auto most =
            *std::max_element(basis[i].begin(), basis[i].end(),
                              [](double a, double b) { return std::abs(a) < std::abs(b); });
        for (double& value : basis[i]) {
            if (most < 0) value = -value;
            result.directions.push_back(static_cast<float>(value));
        }
        result.variances.push_back(static_cast<float>(variances[i]));
    }
    for (size_t r = 0; r < rows; ++r)
        for (const Vector& direction : basis) {
            double along = 0;
            for (size_t i = 0; i < w; ++i) along += (values[r * w + i] - mean[i]) * direction[i];
            result.places.push_back(static_cast<float>(along));
        }
    return result;
}

}  // namespace fovea
