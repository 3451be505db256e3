#include "backend/ops/embedding.h"

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/params.h"

namespace fovea {

Tensor embedding(vk::Stream& stream, const Tensor& ids, const Tensor& table) {
    count_of("embedding", ids);
    count_of("embedding", table);
    require(ids.rank() == 1 && ids.dtype() == DType::i32,
            "[embedding] ids: i32 (n) expected, found {} {}", name_of(ids.dtype()),
            to_string(ids.shape()));
    require(table.rank() == 2, "[embedding] table: (v, w) expected, found {}",
            to_string(table.shape()));
    Tensor y = empty(stream.device(), {ids.dim(0), table.dim(1)}, table.dtype());
    const shader::EmbeddingParams params{.count = count_of("embedding", y),
                                         .width = static_cast<uint32_t>(table.dim(1)),
                                         .rows = static_cast<uint32_t>(table.dim(0))};
    const auto& shader =
        by_dtype("embedding", table.dtype(), shader::embedding_f32, shader::embedding_f16);
    stream.dispatch(stream.device().program(shader, {kElementGroup}),
                    {write(y), read(ids), read(table)}, params,
                    groups_for(params.count, kElementGroup), "embedding");
    return y;
}

}  // namespace fovea
