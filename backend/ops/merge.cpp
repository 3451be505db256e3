#include "backend/ops/merge.h"

#include <utility>

#include "backend/ops/dispatch.h"
#include "shaders.h"
#include "shaders/attention/merge_params.h"

namespace fovea {
namespace {

constexpr size_t kPartsADispatch = 4;  // bindings of merge.comp

void validate(std::span<const AttentionPart> parts) {
    require(!parts.empty(), "[merge] at least one part expected, found none");
    const Tensor& o = parts[0].o;
    count_of("merge", o);
    require(o.rank() >= 1 && o.dim(-1) % 4 == 0,
            "[merge] o: the last axis must be a multiple of 4, found {}", to_string(o.shape()));
    const Shape rows(o.shape().begin(), o.shape().end() - 1);
    for (size_t i = 0; i < parts.size(); ++i) {
        require(parts[i].o && parts[i].lse, "[merge] part {} lacks its o or its lse", i);
        require(parts[i].o.shape() == o.shape() && parts[i].o.dtype() == o.dtype(),
                "[merge] o of part {}: {} {} expected as in part 0, found {} {}", i,
                name_of(o.dtype()), to_string(o.shape()), name_of(parts[i].o.dtype()),
                to_string(parts[i].o.shape()));
        require(parts[i].lse.shape() == rows && parts[i].lse.dtype() == DType::f32,
                "[merge] lse of part {}: f32 {} expected, found {} {}", i, to_string(rows),
                name_of(parts[i].lse.dtype()), to_string(parts[i].lse.shape()));
    }
}

}  // namespace

AttentionPart merge(vk::Stream& stream, std::span<const AttentionPart> parts) {
    validate(parts);
    vk::Device& device = stream.device();
    const Tensor& like = parts[0].o;
    const auto& shader = by_dtype("merge", like.dtype(), shader::merge_f32, shader::merge_f16);
    const AttentionPart result{empty(device, like.shape(), like.dtype()),
                               empty(device, parts[0].lse.shape(), DType::f32)};

    Tensor sums, before, after;
    if (parts.size() > kPartsADispatch) {
        sums = empty(device, like.shape(), DType::f32);
        before = empty(device, {result.lse.numel(), 2}, DType::f32);
        after = empty(device, before.shape(), DType::f32);
    }
    for (size_t begin = 0; begin < parts.size(); begin += kPartsADispatch) {
        const auto some = parts.subspan(begin, std::min(kPartsADispatch, parts.size() - begin));
        const bool first = begin == 0, last = begin + some.size() == parts.size();
        std::vector<vk::Access> accesses = {write(last ? result.o : Tensor()),
                                            write(last ? result.lse : Tensor()), read_write(sums),
                                            read(before), write(after)};
        for (size_t i = 0; i < kPartsADispatch; ++i)
            accesses.push_back(read(i < some.size() ? some[i].o : Tensor()));
        for (size_t i = 0; i < kPartsADispatch; ++i)
            accesses.push_back(read(i < some.size() ? some[i].lse : Tensor()));
        const shared::MergeParams params{.count = static_cast<uint32_t>(like.numel() / 4),
                                         .d4 = static_cast<uint32_t>(like.dim(-1) / 4),
                                         .parts = static_cast<uint32_t>(some.size())};
        stream.dispatch(device.program(shader, {kElementGroup, first, last}), accesses, params,
                        groups_for(params.count, kElementGroup), "merge");
        std::swap(before, after);
    }
    return result;
}

}  // namespace fovea
