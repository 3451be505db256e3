#include "apps/bench/check.h"

#include <algorithm>
#include <cmath>

namespace fovea::apps::bench {

std::vector<int64_t> some_of(int64_t count) {
    std::vector<int64_t> numbers;
    for (const int64_t i : {int64_t{0}, count / 3, count / 2 + count / 64, count - 1})
        if (numbers.empty() || i > numbers.back()) numbers.push_back(i);
    return numbers;
}

std::vector<double> attention_row(const Pattern& pattern, uint32_t query, std::span<const float> q,
                                  std::span<const float> k, std::span<const float> v,
                                  std::span<const float> k_extra, std::span<const float> v_extra) {
    const size_t d = q.size(), tokens = k.size() / d;
    const double scale = 1 / std::sqrt(static_cast<double>(d));
    struct Key {
        double score;
        const float* value;
    };
    std::vector<Key> keys;
    const auto visit = [&](const float* key, const float* value) {
        double dot = 0;
        for (size_t c = 0; c < d; ++c) dot += double{q[c]} * key[c];
        keys.push_back({dot * scale, value});
    };
    for (size_t j = 0; j < tokens; ++j)
        if (pattern.keeps(query, static_cast<uint32_t>(j)))
            visit(k.data() + j * d, v.data() + j * d);
    for (size_t j = 0; j < k_extra.size() / d; ++j)
        visit(k_extra.data() + j * d, v_extra.data() + j * d);

    double most = -1e300, total = 0;
    for (const Key& key : keys) most = std::max(most, key.score);
    std::vector<double> o(d);
    for (const Key& key : keys) {
        const double weight = std::exp(key.score - most);
        total += weight;
        for (size_t c = 0; c < d; ++c) o[c] += weight * key.value[c];
    }
    for (double& value : o) value /= total > 0 ? total : 1;
    return o;
}

}  // namespace fovea::apps::bench
