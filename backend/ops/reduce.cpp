#include "backend/ops/reduce.h"

#include <cmath>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

/// As in statistics.comp.
struct Record {
    float least, most, sum, squares;
    uint32_t nans, infinities;
    float center;
};

constexpr uint32_t kRecords = 4096;
constexpr uint32_t kElementsARecord = 64;  // at least, while there are fewer records than that

}  // namespace

Tensor mean_tokens(vk::Stream& stream, const Tensor& x) {
    count_of("mean_tokens", x);
    require(x.rank() == 3, "[mean_tokens] (b, n, w) expected, found {}", to_string(x.shape()));
    Tensor y = empty(stream.device(), {x.dim(0), x.dim(2)}, x.dtype());
    const shader::ReduceParams params{.count = count_of("mean_tokens", y),
                                      .width = static_cast<uint32_t>(x.dim(2)),
                                      .tokens = static_cast<uint32_t>(x.dim(1))};
    const auto& shader =
        by_dtype("mean_tokens", x.dtype(), shader::mean_tokens_f32, shader::mean_tokens_f16);
    constexpr uint32_t workgroup = 32;  // few results: spread them over the cores
    stream.dispatch(stream.device().program(shader, {workgroup}), {write(y), read(x)}, params,
                    groups_for(params.count, workgroup), "mean_tokens");
    return y;
}

Statistics statistics(vk::Stream& stream, const Tensor& x) {
    const uint32_t count = count_of("statistics", x);
    const uint32_t records = std::min(kRecords, (count + kElementsARecord - 1) / kElementsARecord);
    const Tensor partial =
        empty(stream.device(), {records, static_cast<int64_t>(sizeof(Record) / 4)}, DType::f32);
    const auto& shader =
        by_dtype("statistics", x.dtype(), shader::statistics_f32, shader::statistics_f16);
    const shader::ReduceParams params{.count = count, .records = records};
    constexpr uint32_t workgroup = 64;
    stream.dispatch(stream.device().program(shader, {workgroup}), {write(partial), read(x)}, params,
                    groups_for(records, workgroup), "statistics");
    std::vector<Record> host(records);
    stream.download(read(partial), std::as_writable_bytes(std::span(host)));

    Statistics s;
    double sum = 0, squares = 0;
    bool any = false;
    for (const Record& r : host) {
        s.nan += r.nans;
        s.inf += r.infinities;
        sum += r.sum;
        squares += r.squares;
        if (r.least > r.most) continue;  // no finite element
        s.min = any ? std::min(s.min, r.least) : r.least;
        s.max = any ? std::max(s.max, r.most) : r.most;
        any = true;
    }
    const auto finite = static_cast<double>(count - s.nan - s.inf);
    if (!any) return s;
    s.mean = host[0].center + sum / finite;
    s.stddev = std::sqrt(std::max(0.0, squares / finite - std::pow(sum / finite, 2)));
    return s;
}

}  // namespace fovea
