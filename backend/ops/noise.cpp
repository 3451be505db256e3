#include "backend/ops/noise.h"

#include "backend/ops/dispatch.h"
#include "backend/reference/noise.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {
namespace {

struct NoiseTable {
    Tensor table;
};

Tensor device_table(vk::Stream& stream) {
    Tensor& table = stream.device().cache<NoiseTable>().table;
    if (!table) {
        const auto lines = std::as_bytes(std::span(reference::normal_table()));
        table = empty(stream.device(), {static_cast<int64_t>(lines.size() / 4)}, DType::f32);
        stream.upload(write(table), lines);
        stream.submit();  // the cache may outlive the stream
    }
    return table;
}

}  // namespace

Tensor noise(vk::Stream& stream, Shape shape, uint64_t seed, uint32_t stream_id, DType dtype) {
    const auto& shader = by_dtype("noise", dtype, shader::noise_f32, shader::noise_f16);
    const Tensor table = device_table(stream);
    Tensor y = empty(stream.device(), std::move(shape), dtype);
    const uint32_t count = count_of("noise", y);
    const shader::NoiseParams params{.blocks = (count - 1) / 4 + 1,
                                     .count = count,
                                     .seed_low = static_cast<uint32_t>(seed),
                                     .seed_high = static_cast<uint32_t>(seed >> 32),
                                     .stream = stream_id};
    stream.dispatch(stream.device().program(shader, {kElementGroup}), {write(y), read(table)},
                    params, groups_for(params.blocks, kElementGroup), "noise");
    return y;
}

}  // namespace fovea
