#include <algorithm>
#include <cmath>
#include <utility>

#include "apps/bench/blocks.h"
#include "apps/bench/check.h"
#include "apps/bench/timing.h"
#include "backend/ops/attention.h"
#include "backend/ops/patches.h"
#include "backend/ops/permute.h"
#include "backend/reference/activation.h"
#include "backend/reference/norm.h"

/// The blocks once more, plainly, for a few tokens. Everything but attention is a matter of one
/// token, so this holds at any size; attention reads the device's keys and values, which are
/// checked at those tokens as well.
namespace fovea::apps::bench {
namespace {

using Values = std::vector<float>;  ///< (rows, n)
using Numbers = std::vector<int64_t>;

Values joined(Values a, const Values& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

Values activated(Values x, Activation activation) {
    for (float& value : x) value = static_cast<float>(reference::activate(value, activation));
    return x;
}

/// x + gate · y; without a gate x + y
Values residual(Values x, const Values& y, std::span<const float> gate = {}) {
    for (size_t i = 0; i < x.size(); ++i)
        x[i] += (gate.empty() ? 1.0f : gate[i % gate.size()]) * y[i];
    return x;
}

/// Columns begin … begin + count − 1 of rows of n.
Values columns(const Values& x, size_t n, size_t begin, size_t count) {
    Values y;
    for (size_t row = 0; row < x.size() / n; ++row) {
        const auto from = x.begin() + static_cast<int64_t>(row * n + begin);
        y.insert(y.end(), from, from + static_cast<int64_t>(count));
    }
    return y;
}

/// Sampled tokens of the grid or of the text, and what attention gets of them.
struct Side {
    Numbers tokens;
    Values q, k, v;  ///< (tokens, heads · head_dim)
};

class Check {
  public:
    Check(vk::Stream& stream, const ModelShape& shape) : stream_(stream), s_(shape) {}

    double error() const { return error_; }

    /// Rows of x (1, tokens, n).
    Values rows(const Tensor& x, const Numbers& tokens) {
        Values y;
        for (const int64_t token : tokens)
            y = joined(std::move(y), to_host(stream_, x.index(0).slice(token, 1)));
        return y;
    }

    Values product(const Values& x, const Linear& layer, Activation activation = Activation::none) {
        const Values w = to_host(stream_, layer.weight);
        const auto in = static_cast<size_t>(layer.weight.dim(0));
        const auto out = static_cast<size_t>(layer.weight.dim(1));
        Values bias(out, 0.0f), y;
        if (layer.bias) bias = to_host(stream_, layer.bias);
        for (size_t row = 0; row < x.size() / in; ++row) {
            std::vector<double> sums(bias.begin(), bias.end());
            for (size_t i = 0; i < in; ++i)
                for (size_t j = 0; j < out; ++j)
                    sums[j] += double{x[row * in + i]} * w[i * out + j];
            for (const double sum : sums)
                y.push_back(static_cast<float>(reference::activate(sum, activation)));
        }
        return y;
    }

    Values rms(const Values& x, const Tensor& weight) {
        const Values w = to_host(stream_, weight);
        return reference::rms_norm(x, w.size(), {.weight = w});
    }

    Values turned(Values x, const Numbers& tokens) const {
        const auto d = static_cast<size_t>(s_.head_dim), width = static_cast<size_t>(s_.width());
        for (size_t row = 0; row < tokens.size(); ++row) {
            int64_t rest = tokens[row];
            std::array<int64_t, 3> position{0, 0, 0};
            for (size_t axis = 3, n = s_.grid.size(); axis-- > 0 && n-- > 0;) {
                position[axis] = rest % s_.grid[n];
                rest /= s_.grid[n];
            }
            for (size_t head = 0; head < s_.heads; ++head) {
                float* pair = x.data() + row * width + head * d;
                for (size_t axis = 0; axis < 3; ++axis)
                    for (int j = 0; j < s_.rope_axes[axis] / 2; ++j, pair += 2) {
                        const double angle =
                            static_cast<double>(position[axis]) *
                            std::pow(double{s_.rope_theta}, -2.0 * j / s_.rope_axes[axis]);
                        const double a = pair[0], b = pair[1];
                        pair[0] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
                        pair[1] = static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
                    }
            }
        }
        return x;
    }

    void compare(const Values& found, const Values& expected) {
        Difference difference;
        for (size_t i = 0; i < expected.size(); ++i) difference.add(found.at(i), expected[i]);
        error_ = std::max(error_, difference.relative());
    }
    void compare_tokens(const Tensor& found, const Numbers& tokens, const Values& expected) {
        compare(rows(found, tokens), expected);
    }
    /// Of x (1, tokens, heads, head_dim), which may be a view: (tokens, heads · head_dim).
    Values heads(const Tensor& x, const Numbers& tokens) {
        Values all;
        for (const int64_t token : tokens)
            all = joined(
                std::move(all),
                to_host(stream_,
                        compact(stream_, x.index(0).slice(token, 1).reshape({1, s_.width()}))));
        return all;
    }

    /// What attention gave each side's tokens, (tokens, heads · head_dim), after a few of its heads
    /// were compared.
    std::pair<Values, Values> attend(const AttentionCall& call, const Pattern& pattern,
                                     const Side& image, const Side& text = {}) {
        const auto d = static_cast<size_t>(s_.head_dim), width = static_cast<size_t>(s_.width());
        const Values o = heads(call.o, image.tokens);
        const Values text_o = call.text_o ? heads(call.text_o, text.tokens) : Values();
        Values found, expected;
        for (const int64_t head : some_of(s_.heads)) {
            const auto of_head = [&](const Tensor& x) {
                if (!x) return Values();
                const Tensor all = x.index(0).reshape({x.dim(1), s_.width()});
                return to_host(stream_,
                               compact(stream_, all.columns(head * s_.head_dim, s_.head_dim)));
            };
            const Values k = of_head(call.k), v = of_head(call.v);
            const Values k_extra = of_head(call.k_extra), v_extra = of_head(call.v_extra);
            const auto add = [&](const Side& side, const Pattern& rule, const Values& of_device) {
                for (size_t i = 0; i < side.tokens.size(); ++i) {
                    const size_t at = i * width + static_cast<size_t>(head) * d;
                    const auto row =
                        attention_row(rule, static_cast<uint32_t>(side.tokens[i]),
                                      std::span(side.q).subspan(at, d), k, v, k_extra, v_extra);
                    expected.insert(expected.end(), row.begin(), row.end());
                    const auto own = std::span(of_device).subspan(at, d);
                    found.insert(found.end(), own.begin(), own.end());
                }
            };
            add(image, pattern.head(static_cast<uint32_t>(head)), o);
            add(text, dense(), text_o);
        }
        compare(found, expected);
        return {o, text_o};
    }

    Values host(const Tensor& x) { return to_host(stream_, x); }

  private:
    vk::Stream& stream_;
    const ModelShape& s_;
    double error_ = 0;
};

/// What modulates one side: parts of n numbers.
struct Modulation {
    Values all;
    size_t n;
    std::span<const float> operator[](size_t part) const {
        return std::span(all).subspan(part * n, n);
    }
    Values norm(const Values& x, size_t first) const {
        return reference::layer_norm(x, n, {.shift = (*this)[first], .scale = (*this)[first + 1]});
    }
};

struct Context {
    Check& check;
    const ModelShape& s;
    const BlockWeights& w;
    const Trace& trace;
    const Pattern& pattern;
    Values condition;
    size_t n = static_cast<size_t>(s.width());

    Modulation modulation(const std::string& name) const {
        return {check.product(activated(condition, Activation::silu), w.layer(name)), n};
    }
    Values mlp(const std::string& of, const Values& x, const Modulation& m) const {
        const Values h = check.product(m.norm(x, 3), w.layer(of + "fc1"), Activation::gelu);
        return residual(x, check.product(h, w.layer(of + "fc2")), m[5]);
    }
    /// Of rows (tokens, 3 · width).
    Side split(const Numbers& tokens, const Values& qkv) const {
        return {tokens, columns(qkv, 3 * n, 0, n), columns(qkv, 3 * n, n, n),
                columns(qkv, 3 * n, 2 * n, n)};
    }
    Side normed(Side side, const std::string& of, bool on_grid) const {
        for (auto& [x, name] : {std::pair(&side.q, "q_norm"), std::pair(&side.k, "k_norm")}) {
            *x = check.rms(*x, w.vector(of + name));
            if (on_grid) *x = check.turned(*x, side.tokens);
        }
        return side;
    }
    void compare_keys(const Side& image, const Side& text) const {
        check.compare(check.heads(trace.self.k, image.tokens), image.k);
        check.compare(check.heads(trace.self.v, image.tokens), image.v);
        if (text.tokens.empty()) return;
        check.compare(check.heads(trace.self.k_extra, text.tokens), text.k);
        check.compare(check.heads(trace.self.v_extra, text.tokens), text.v);
    }
};

void check_dit(const Context& c) {
    const Numbers tokens = some_of(c.s.tokens());
    const Values x = c.check.rows(c.trace.in.image, tokens);
    const Modulation m = c.modulation("modulation");
    const Side side = c.split(tokens, c.check.product(m.norm(x, 0), c.w.layer("qkv")));
    c.compare_keys(side, {});
    const Values o = c.check.attend(c.trace.self, c.pattern, side).first;
    const Values y = residual(x, c.check.product(o, c.w.layer("out")), m[2]);
    c.check.compare_tokens(c.trace.out.image, tokens, c.mlp("", y, m));
}

void check_wan(const Context& c) {
    Check& check = c.check;
    const Numbers tokens = some_of(c.s.tokens()), text = some_of(c.s.text);
    const auto layer = [&](const char* name) -> const Linear& { return c.w.layer(name); };
    const Values x = check.rows(c.trace.in.image, tokens);
    const Modulation m{residual(c.condition, check.host(c.w.vector("modulation"))), c.n};
    const Values h = m.norm(x, 0);
    const auto turned = [&](const char* name, const char* norm) {
        return check.turned(check.rms(check.product(h, layer(name)), c.w.vector(norm)), tokens);
    };
    const Side side{tokens, turned("q", "q_norm"), turned("k", "k_norm"),
                    check.product(h, layer("v"))};
    c.compare_keys(side, {});
    Values o = check.attend(c.trace.self, c.pattern, side).first;
    Values y = residual(x, check.product(o, layer("out")), m[2]);

    const Values words = check.rows(c.trace.in.text, text);
    check.compare(check.heads(c.trace.cross.k, text),
                  check.rms(check.product(words, layer("cross_k")), c.w.vector("cross_k_norm")));
    check.compare(check.heads(c.trace.cross.v, text), check.product(words, layer("cross_v")));
    const Values weight = check.host(c.w.vector("cross_norm")),
                 bias = check.host(c.w.vector("cross_norm_bias"));
    const Values normed = reference::layer_norm(y, c.n, {.weight = weight, .bias = bias});
    const Side asking{
        tokens,
        check.rms(check.product(normed, layer("cross_q")), c.w.vector("cross_q_norm")),
        {},
        {}};
    o = check.attend(c.trace.cross, dense(), asking).first;
    y = residual(y, check.product(o, layer("cross_out")));
    check.compare_tokens(c.trace.out.image, tokens, c.mlp("", y, m));
}

void check_dual(const Context& c) {
    const Modulation m = c.modulation("modulation"), text_m = c.modulation("text_modulation");
    const auto side = [&](const std::string& of, const Numbers& tokens, const Values& x,
                          const Modulation& by) {
        const Values qkv = c.check.product(by.norm(x, 0), c.w.layer(of + "qkv"));
        return c.normed(c.split(tokens, qkv), of, of.empty());
    };
    const auto finish = [&](const std::string& of, const Values& x, const Values& o,
                            const Modulation& by) {
        return c.mlp(of, residual(x, c.check.product(o, c.w.layer(of + "out")), by[2]), by);
    };
    const Numbers tokens = some_of(c.s.tokens()), words = some_of(c.s.text);
    const Values x = c.check.rows(c.trace.in.image, tokens);
    const Values text_x = c.check.rows(c.trace.in.text, words);
    const Side image = side("", tokens, x, m), text = side("text_", words, text_x, text_m);
    c.compare_keys(image, text);
    const auto [o, text_o] = c.check.attend(c.trace.self, c.pattern, image, text);
    c.check.compare_tokens(c.trace.out.image, tokens, finish("", x, o, m));
    c.check.compare_tokens(c.trace.out.text, words, finish("text_", text_x, text_o, text_m));
}

void check_single(const Context& c) {
    const Modulation m = c.modulation("modulation");
    const Numbers tokens = some_of(c.s.tokens()), words = some_of(c.s.text);
    Numbers all = tokens;
    for (const int64_t word : words) all.push_back(c.s.tokens() + word);
    const Values x = c.check.rows(c.trace.in.image, all), h = m.norm(x, 0);
    const Values qkv = c.check.product(h, c.w.layer("qkv"));
    const auto first = qkv.begin() + static_cast<int64_t>(tokens.size() * 3 * c.n);
    const Side image = c.normed(c.split(tokens, Values(qkv.begin(), first)), "", true);
    const Side text = c.normed(c.split(words, Values(first, qkv.end())), "", false);
    c.compare_keys(image, text);
    const auto [o, text_o] = c.check.attend(c.trace.self, c.pattern, image, text);
    const Values hidden = c.check.product(h, c.w.layer("fc1"), Activation::gelu);
    const Values sum = residual(c.check.product(joined(o, text_o), c.w.layer("out")),
                                c.check.product(hidden, c.w.layer("fc2")));
    c.check.compare_tokens(c.trace.out.image, all, residual(x, sum, m[2]));
}

}  // namespace

double block_error(vk::Stream& stream, const ModelShape& s, const BlockWeights& w,
                   const Tensor& condition, const Pattern& pattern, const Trace& trace) {
    Check check(stream, s);
    const Context c{check, s, w, trace, pattern, to_host(stream, condition)};
    switch (s.kind) {
        case BlockKind::dit:
            check_dit(c);
            break;
        case BlockKind::wan:
            check_wan(c);
            break;
        case BlockKind::dual:
            check_dual(c);
            break;
        case BlockKind::single:
            check_single(c);
            break;
    }
    return check.error();
}

double denoiser_error(vk::Stream& stream, const ModelShape& s, const Denoiser& model,
                      const Pattern& pattern, const DenoiserTrace& trace, const Tensor& found) {
    Check check(stream, s);
    const auto layer = [&](const char* name) -> const Linear& { return model.ends.layer(name); };
    const Numbers tokens = some_of(s.tokens());
    const auto n = static_cast<size_t>(s.width());

    const Values time = check.product(check.host(model.time), layer("time1"), Activation::silu);
    const Values condition = residual(check.host(model.label), check.product(time, layer("time2")));
    check.compare(check.host(trace.condition), condition);
    const Values patches = check.rows(patchify(stream, model.latent, 2), tokens);
    const Tensor positions = model.ends.vector("positions");
    const Values x = residual(check.product(patches, layer("patch")),
                              check.rows(positions.reshape({1, s.tokens(), s.width()}), tokens));
    check.compare_tokens(trace.blocks.front().in.image, tokens, x);

    double error = 0;
    for (const size_t i : {size_t{0}, model.blocks.size() - 1})
        error = std::max(error, block_error(stream, s, model.blocks[i], trace.condition, pattern,
                                            trace.blocks[i]));

    const Modulation m{
        check.product(activated(condition, Activation::silu), layer("final_modulation")), n};
    const Values last = check.rows(trace.blocks.back().out.image, tokens);
    check.compare_tokens(patchify(stream, found, 2), tokens,
                         check.product(m.norm(last, 0), layer("final")));
    return std::max(error, check.error());
}

}  // namespace fovea::apps::bench
