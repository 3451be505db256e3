#include "vision/taps/inject.h"

#include "backend/error.h"
#include "backend/ops/elementwise.h"
#include "backend/ops/gemm.h"
#include "backend/ops/permute.h"
#include "backend/ops/probabilities.h"
#include "vision/layers.h"

namespace fovea {
namespace {

using Rows = std::vector<std::pair<int64_t, Tensor>>;  // sample of the batch, what it becomes

Tensor with_rows(vk::Stream& stream, const Tensor& x, const Rows& rows) {
    const Tensor y = empty(stream.device(), x.shape(), x.dtype());
    for (int64_t i = 0; i < x.dim(0); ++i) {
        Tensor row = x.slice(i, 1);
        for (const auto& [sample, value] : rows)
            if (sample == i) row = value;
        stream.copy(read(row), write(y.slice(i, 1)));
    }
    return y;
}

// (tokens) f32 in [0, 1] as what values of heads, (samples, tokens, heads, head_dim), are
// multiplied by.
Tensor mask_of_heads(vk::Stream& stream, const Tensor& mask, const Tensor& like) {
    require(mask.shape() == Shape{like.dim(1)} && mask.dtype() == DType::f32,
            "[inject] an f32 mask of {} tokens expected, found {}", like.dim(1),
            to_string(mask.shape()));
    return convert(stream,
                   strided_copy(stream, mask, {like.dim(1), like.dim(2) * like.dim(3)}, {1, 0}),
                   like.dtype());
}

// a + m · (b − a): where both are the same, so is the result.
Tensor blend(vk::Stream& stream, const Tensor& a, const Tensor& b, const Tensor& mask) {
    const Tensor more = linear_combination(stream, {{1, b}, {-1, a}});
    const Shape flat{a.dim(0), a.dim(1), a.dim(2) * a.dim(3)};
    return add(stream, a, multiply(stream, more.reshape(flat), mask).reshape(a.shape()));
}

void require_samples(int64_t source, int64_t target, const Tensor& q) {
    const int64_t batch = q.dim(0);
    require(source >= 0 && target >= 0 && source < batch && target < batch && source != target,
            "[inject] samples {} and {} found, expected two of a batch of {}", source, target,
            batch);
}

}  // namespace

DitHooks::Attention inject_cross(CrossInjection injection) {
    return [in = std::move(injection)](vk::Stream& stream, int64_t, const Tensor& q,
                                       const Tensor& k, const Tensor& v) {
        require_samples(in.source, in.target, q);
        const int64_t length = k.dim(1);
        require(in.mapping.shape() == Shape{length, length} && in.own.shape() == Shape{length},
                "[inject] a mapping {0} × {0} and {0} weights expected, found {1} and {2}", length,
                to_string(in.mapping.shape()), to_string(in.own.shape()));
        const auto map = [&](int64_t i) {
            return probabilities(stream, q.slice(i, 1), k.slice(i, 1));
        };
        const Tensor source = map(in.source), target = map(in.target);
        const Tensor mixed =
            gemm(stream, source, in.mapping, {.residual = multiply(stream, target, in.own)});
        return with_rows(stream, attend(stream, q, k, v, dense()),
                         {{in.source, weighted_values(stream, source, v.slice(in.source, 1))},
                          {in.target, weighted_values(stream, mixed, v.slice(in.target, 1))}});
    };
}

DitHooks::Attention inject_self(SelfInjection injection, DitHooks::Attention attention) {
    return
        [in = std::move(injection), attention = std::move(attention)](
            vk::Stream& stream, int64_t layer, const Tensor& q, const Tensor& k, const Tensor& v) {
            const Tensor own = attention(stream, layer, q, k, v);
            Tensor mask;
            if (in.mask) mask = mask_of_heads(stream, in.mask, own);
            Rows rows;
            for (const auto& [source, target] : in.pairs) {
                require_samples(source, target, q);
                Tensor o = attention(stream, layer, q.slice(source, 1), k.slice(source, 1),
                                     v.slice(target, 1));
                if (mask) o = blend(stream, o, own.slice(target, 1), mask);
                rows.emplace_back(target, o);
            }
            return with_rows(stream, own, rows);
        };
}

DitHooks inject_reference(const ReferenceInjection& injection, const DitHooks& base) {
    const auto injected = [in = injection, base](vk::Stream& stream, int64_t layer, const Tensor& q,
                                                 const Tensor& k, const Tensor& v,
                                                 const Tensor& own) {
        require(in.count > 0 && q.dim(0) % (2 * in.count) == 0,
                "[inject] samples in multiples of {} expected, found {}", 2 * in.count, q.dim(0));
        const Tensor mask = mask_of_heads(stream, in.mask, own);
        const Tensor o = empty(stream.device(), own.shape(), own.dtype());
        stream.copy(read(own), write(o));
        for (int64_t first = 0; first < q.dim(0); first += 2 * in.count) {
            const auto pictures = [&](const Tensor& x) { return x.slice(first, in.count); };
            const auto references = [&](const Tensor& x) {
                return x.slice(first + in.count, in.count);
            };
            const Tensor at =
                base.attention(stream, layer, pictures(q), references(k), references(v));
            stream.copy(read(blend(stream, pictures(own), at, mask)), write(pictures(o)));
        }
        return o;
    };
    DitHooks hooks = base;
    hooks.attention = [base, injected](vk::Stream& stream, int64_t layer, const Tensor& q,
                                       const Tensor& k, const Tensor& v) {
        return injected(stream, layer, q, k, v, base.attention(stream, layer, q, k, v));
    };
    if (base.perturbed)
        hooks.perturbed = [base, injected](vk::Stream& stream, int64_t layer, const Tensor& q,
                                           const Tensor& k, const Tensor& v, const Tensor& u) {
            return injected(stream, layer, q, k, v, base.perturbed(stream, layer, q, k, v, u));
        };
    return hooks;
}

DitHooks::Attention inject_regions(RegionTexts regions, int64_t first, int64_t count) {
    return
        [in = std::move(regions), first, count](vk::Stream& stream, int64_t layer, const Tensor& q,
                                                const Tensor& k, const Tensor& v) {
            const auto side_by_side = [&](const std::vector<Tensor>& of_layers) {
                const Tensor& x = of_layers.at(static_cast<size_t>(layer));
                return x.reshape({1, x.dim(0) * x.dim(1), x.dim(2), x.dim(3)});
            };
            const Tensor keys = side_by_side(in.texts.keys), values = side_by_side(in.texts.values);
            require(in.bias.shape() == Shape{1, q.dim(1), keys.dim(1)},
                    "[inject] a bias of {} tokens and {} words expected, found {}", q.dim(1),
                    keys.dim(1), to_string(in.bias.shape()));
            const Tensor o = empty(stream.device(), q.shape(), q.dtype());
            for (int64_t i = 0; i < q.dim(0); ++i) {
                const auto row = [i](const Tensor& x) { return x.slice(i, 1); };
                const bool own = i >= first && i < first + count;
                stream.copy(
                    read(own ? attend(stream, row(q), row(k), row(v), dense())
                             : attend(stream, row(q), keys, values, dense(), {.bias = in.bias})),
                    write(row(o)));
            }
            return o;
        };
}

}  // namespace fovea
