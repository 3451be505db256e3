#include "pipelines/attention_case.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/error.h"
#include "backend/patterns/block_sparse.h"
#include "backend/patterns/disc.h"
#include "backend/patterns/radial.h"
#include "backend/patterns/reordered.h"

namespace fovea {
namespace {

using nlohmann::json;

/// A JSON object whose members are read with their type and range.
class Object {
  public:
    Object(const json& object, std::string where) : object_(object), where_(std::move(where)) {
        require(object.is_object(), "[case] {}: an object expected, found {}", where_,
                text(object));
    }

    bool has(const char* key) const {
        known_.insert(key);
        return object_.contains(key);
    }
    /// To be called when all members have been asked for: others are errors.
    void done() const {
        for (const auto& [key, value] : object_.items())
            require(known_.contains(key), "[case] {}: \"{}\" found, expected {}", where_,
                    key.substr(0, 40), fmt::join(known_, ", "));
    }
    const json& at(const char* key) const {
        require(has(key), "[case] {} lacks \"{}\"", where_, key);
        return object_.at(key);
    }
    Object object(const char* key) const { return {at(key), fmt::format("{}.{}", where_, key)}; }
    std::string string(const char* key) const {
        require(at(key).is_string(), "[case] {}.{}: a string expected, found {}", where_, key,
                text(at(key)));
        return at(key);
    }
    uint32_t count(const char* key) const { return count(key, at(key)); }
    double number(const char* key) const { return number(key, at(key)); }
    bool flag(const char* key) const { return flag(key, at(key)); }
    std::vector<uint32_t> counts(const char* key) const {
        return list<uint32_t>(key, [&](const json& item) { return count(key, item); });
    }
    std::vector<float> numbers(const char* key) const {
        return list<float>(key,
                           [&](const json& item) { return static_cast<float>(number(key, item)); });
    }
    std::vector<bool> flags(const char* key) const {
        return list<bool>(key, [&](const json& item) { return flag(key, item); });
    }
    std::vector<std::string> strings(const char* key) const {
        return list<std::string>(key, [&](const json& item) {
            require(item.is_string(), "[case] {}.{}: strings expected, found {}", where_, key,
                    text(item));
            return item.get<std::string>();
        });
    }

  private:
    /// Of a value of the wrong type, short enough for a line.
    static std::string text(const json& value) {
        std::string all = value.dump(-1, ' ', true, json::error_handler_t::replace);
        if (all.size() > 40) all = all.substr(0, 37) + "...";
        return all;
    }
    uint32_t count(const char* key, const json& value) const {
        constexpr uint32_t kMost = std::numeric_limits<int32_t>::max();
        const bool fits = value.is_number_unsigned() && value.get<uint64_t>() <= kMost;
        require(fits, "[case] {}.{}: a whole number from 0 to {} expected, found {}", where_, key,
                kMost, text(value));
        return value.get<uint32_t>();
    }
    double number(const char* key, const json& value) const {
        const bool fits =
            value.is_number() && std::abs(value.get<double>()) <= std::numeric_limits<float>::max();
        require(fits, "[case] {}.{}: a number expected, found {}", where_, key, text(value));
        return value.get<double>();
    }
    bool flag(const char* key, const json& value) const {
        require(value.is_boolean(), "[case] {}.{}: true or false expected, found {}", where_, key,
                text(value));
        return value.get<bool>();
    }
    template <typename T, typename Read>
    std::vector<T> list(const char* key, const Read& read) const {
        require(at(key).is_array(), "[case] {}.{}: a list expected, found {}", where_, key,
                text(at(key)));
        std::vector<T> result;
        for (const json& item : at(key)) result.push_back(read(item));
        return result;
    }

    const json& object_;
    std::string where_;
    mutable std::set<std::string> known_;
};

/// Inputs are floating point and expected results too; masks are bytes.
HostTensor tensor(const Weights& file, const char* name, size_t rank,
                  std::initializer_list<StoredType> types) {
    const TensorInfo& info = file.info(name);
    std::vector<std::string> names;
    for (const StoredType type : types) names.emplace_back(type_name(type));
    require(std::find(types.begin(), types.end(), info.type) != types.end(),
            "[case] {}: {} expected, found {}", name, fmt::join(names, " or "),
            type_name(info.type));
    require(info.shape.size() == rank && std::count_if(info.shape.begin(), info.shape.end(),
                                                       [](int64_t n) { return n < 1; }) == 0,
            "[case] {}: {} axes of at least 1 expected, found {}", name, rank,
            shape_text(info.shape));
    return {info.shape, file.floats(name, info.shape)};
}

HostTensor input(const Weights& file, const char* name) {
    return tensor(file, name, 4, {StoredType::F16, StoredType::F32, StoredType::BF16});
}

void require_shape(const char* name, const HostTensor& found, const Shape& expected) {
    require(found.shape == expected, "[case] {}: shape {} expected, found {}", name,
            shape_text(expected), shape_text(found.shape));
}

void read_tensors(const Weights& file, AttentionCase& c) {
    c.q = input(file, "q");
    c.k = input(file, "k");
    c.v = input(file, "v");
    const Shape &q = c.q.shape, &k = c.k.shape, &v = c.v.shape;
    require(k[0] == q[0] && k[3] == q[3] && q[1] % k[1] == 0,
            "[case] k: batch {} and head_dim {} of q expected, and heads that divide {}, found {}",
            q[0], q[3], q[1], shape_text(k));
    require_shape("v", c.v, {k[0], k[1], k[2], v[3]});
    require(file.contains("k_extra") == file.contains("v_extra"),
            "[case] k_extra and v_extra go together, found only one");
    if (file.contains("k_extra")) {
        c.k_extra = input(file, "k_extra");
        c.v_extra = input(file, "v_extra");
        const int64_t extra = c.k_extra.shape[2];
        require_shape("k_extra", c.k_extra, {k[0], k[1], extra, k[3]});
        require_shape("v_extra", c.v_extra, {k[0], k[1], extra, v[3]});
    }
    if (file.contains("o")) {
        c.o = tensor(file, "o", 4, {StoredType::F32, StoredType::F16});
        require_shape("o", c.o, {q[0], q[1], q[2], v[3]});
    }
    if (file.contains("lse")) {
        c.lse = tensor(file, "lse", 3, {StoredType::F32, StoredType::F16});
        require_shape("lse", c.lse, {q[0], q[1], q[2]});
    }
}

/// What a pattern is made of.
struct Source {
    const Object& spec;
    const Weights& file;
    AttentionCase& c;

    uint32_t heads() const { return static_cast<uint32_t>(c.q.shape[1]); }
    uint32_t queries() const { return static_cast<uint32_t>(c.q.shape[2]); }
    uint32_t keys() const { return static_cast<uint32_t>(c.k.shape[2]); }
};

Grid grid_of(const Source& s, size_t least_axes, size_t most_axes, uint32_t text_tokens = 0) {
    const Grid grid{s.spec.counts("grid")};
    require(grid.shape.size() >= least_axes && grid.shape.size() <= most_axes,
            "[case] a grid of {} to {} axes expected, found {}", least_axes, most_axes,
            fmt::join(grid.shape, "x"));
    uint64_t tokens = 1;  // three axes of 31 bits do not fit 64
    for (const uint32_t extent : grid.shape)
        tokens = std::min<uint64_t>(tokens * extent, uint64_t{1} << 32);
    tokens += text_tokens;
    require(tokens == s.queries() && tokens == s.keys(),
            "[case] a grid of {} with {} tokens of text is {} tokens, found {} queries and {} keys",
            fmt::join(grid.shape, "x"), text_tokens, tokens, s.queries(), s.keys());
    return grid;
}

struct FileMask {
    uint32_t heads, rows, cols;
    std::vector<uint8_t> visible;
};

FileMask mask_of(const Source& s, uint32_t block_q, uint32_t block_k) {
    require(block_q >= 1 && block_k >= 1, "[case] blocks of at least 1×1 expected, found {}×{}",
            block_q, block_k);
    const HostTensor mask = tensor(s.file, "block_mask", 3, {StoredType::U8});
    const uint32_t rows = (s.queries() + block_q - 1) / block_q,
                   cols = (s.keys() + block_k - 1) / block_k;
    const int64_t heads = mask.shape[0];
    require(heads == 1 || heads == s.heads(), "[case] block_mask: 1 or {} heads expected, found {}",
            s.heads(), heads);
    require_shape("block_mask", mask, {heads, rows, cols});
    FileMask result{static_cast<uint32_t>(heads), rows, cols, {}};
    for (const float value : mask.values) {
        require(value == 0 || value == 1, "[case] block_mask: zeros and ones expected, found {}",
                value);
        result.visible.push_back(value == 1);
    }
    return result;
}

Pattern read_neighborhood(const Source& s) {
    const auto counts = [&](const char* key) {
        return s.spec.has(key) ? s.spec.counts(key) : std::vector<uint32_t>();
    };
    return neighborhood(grid_of(s, 1, 3), {.window = s.spec.counts("window"),
                                           .stride = counts("stride"),
                                           .dilation = counts("dilation"),
                                           .causal = s.spec.has("causal") ? s.spec.flags("causal")
                                                                          : std::vector<bool>()});
}

Pattern read_radial(const Source& s) {
    const RadialOptions options{.frames = s.spec.count("frames"),
                                .tokens_per_frame = s.spec.count("tokens_per_frame"),
                                .tokens = s.spec.count("tokens"),
                                .block = s.spec.count("block"),
                                .decay = s.spec.number("decay"),
                                .sink_first_frame = s.spec.flag("sink_first_frame")};
    require(options.tokens == s.queries() && options.tokens == s.keys(),
            "[case] radial over {} tokens, found {} queries and {} keys", options.tokens,
            s.queries(), s.keys());
    const Radial pattern = radial(options);
    if (s.file.contains("block_mask")) {
        const FileMask expected = mask_of(s, options.block, options.block);
        const auto& found = pattern.block_mask().visible;
        for (size_t i = 0; i < expected.visible.size(); ++i)
            s.c.wrong_blocks += expected.visible[i] != found[i % found.size()];
    }
    return pattern;
}

Pattern read_block_sparse(const Source& s) {
    const uint32_t block_q = s.spec.count("block_q"), block_k = s.spec.count("block_k");
    const FileMask mask = mask_of(s, block_q, block_k);
    return block_sparse(BlockSparseOptions{.heads = mask.heads,
                                           .q_blocks = mask.rows,
                                           .k_blocks = mask.cols,
                                           .block_q = block_q,
                                           .block_k = block_k,
                                           .mask = mask.visible});
}

Pattern read_reordered(const Source& s) {
    const uint32_t text = s.spec.has("text_tokens") ? s.spec.count("text_tokens") : 0;
    ReorderedOptions options{.grid = grid_of(s, 3, 3, text),
                             .text_tokens = text,
                             .block_q = s.spec.count("block_q"),
                             .block_k = s.spec.count("block_k")};
    for (const std::string& order : s.spec.strings("orders"))
        options.orders.push_back(parse_axis_order(order));
    require(options.orders.size() == s.heads(), "[case] orders: one a head expected, {}, found {}",
            s.heads(), options.orders.size());
    options.mask = mask_of(s, options.block_q, options.block_k).visible;
    return reordered(options);
}

Pattern read_disc(const Source& s) {
    const uint32_t text = s.spec.has("text_tokens") ? s.spec.count("text_tokens") : 0;
    return disc(grid_of(s, 2, 2, text), s.spec.number("radius"), text);
}

using Reader = Pattern (*)(const Source&);
const std::map<std::string, Reader>& readers() {
    static const std::map<std::string, Reader> table = {
        {"block_sparse", read_block_sparse},
        {"dense", [](const Source&) -> Pattern { return dense(); }},
        {"disc", read_disc},
        {"neighborhood", read_neighborhood},
        {"radial", read_radial},
        {"reordered", read_reordered}};
    return table;
}

json parse_spec(const std::string& text) {
    // Printing what was found recurses as deep as it is nested.
    const auto shallow = [](int depth, json::parse_event_t, const json&) {
        constexpr int kDeepest = 8;
        require(depth <= kDeepest, "[case] spec is nested deeper than {} levels", kDeepest);
        return true;
    };
    try {
        return json::parse(text, shallow);
    } catch (const json::exception& error) {
        fail("[case] spec is no JSON: {}", error.what());
    }
}

/// Two infinities of one sign are equal; NaN is as wrong as can be.
float largest_difference(const std::vector<float>& found, const std::vector<float>& expected) {
    float most = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        if (found[i] == expected[i]) continue;
        const float difference = std::abs(found[i] - expected[i]);
        if (std::isnan(difference)) return std::numeric_limits<float>::infinity();
        most = std::max(most, difference);
    }
    return most;
}

}  // namespace

std::string AttentionCase::shape_text() const {
    std::string text = fmt::format("{}", fmt::join(q.shape, "×"));
    if (k.shape[1] != q.shape[1]) text += fmt::format(" {} kv heads", k.shape[1]);
    if (k.shape[2] != q.shape[2]) text += fmt::format(" {} keys", k.shape[2]);
    if (v.shape[3] != q.shape[3]) text += fmt::format(" v {}", v.shape[3]);
    if (k_extra) text += fmt::format(" +{} keys", k_extra.shape[2]);
    return text;
}

AttentionCase read_attention_case(const Weights& file) {
    const auto entry = file.metadata().find("spec");
    require(entry != file.metadata().end(), "[case] the metadata lacks \"spec\"");
    const json parsed = parse_spec(entry->second);
    const Object spec(parsed, "spec");
    const Object pattern = spec.object("pattern");
    const std::string type = pattern.string("type");
    std::vector<std::string> types;
    for (const auto& [name, reader] : readers()) types.push_back(name);
    require(readers().contains(type), "[case] pattern \"{}\" found, expected one of {}",
            type.substr(0, 40), fmt::join(types, ", "));

    AttentionCase c{.spec = entry->second, .pattern_type = type, .pattern = dense()};
    read_tensors(file, c);
    if (spec.has("scale")) {
        c.scale = static_cast<float>(spec.number("scale"));
        require(c.scale != 0, "[case] spec.scale must not be 0");
    }
    if (spec.has("perturb")) {
        c.perturb.values = spec.numbers("perturb");
        c.perturb.shape = {static_cast<int64_t>(c.perturb.values.size())};
        require_shape("spec.perturb", c.perturb, {c.q.shape[1]});
        require(c.q.shape[2] == c.k.shape[2],
                "[case] perturb needs as many keys as queries, found {} and {}", c.k.shape[2],
                c.q.shape[2]);
    }
    spec.done();
    c.pattern = readers().at(type)({pattern, file, c});
    pattern.done();
    return c;
}

AttentionTolerance attention_tolerance(DType dtype, ScorePrecision scores) {
    if (scores == ScorePrecision::int8) return {1e-1f, 5e-2f};
    return dtype == DType::f16 ? AttentionTolerance{1e-2f, 5e-3f}
                               : AttentionTolerance{1e-4f, 1e-3f};
}

AttentionCaseResult run_attention_case(vk::Stream& stream, const AttentionCase& c, DType dtype,
                                       AttentionPath path, ScorePrecision scores) {
    const auto device = [&](const HostTensor& t, DType type) {
        return t ? upload(stream, t.values, t.shape, type) : Tensor();
    };
    Tensor lse;
    const AttentionOptions options{.scale = c.scale,
                                   .k_extra = device(c.k_extra, dtype),
                                   .v_extra = device(c.v_extra, dtype),
                                   .lse = &lse,
                                   .perturb = device(c.perturb, DType::f32),
                                   .path = path,
                                   .scores = scores};
    const Tensor o = attention(stream, device(c.q, dtype), device(c.k, dtype), device(c.v, dtype),
                               c.pattern, options);
    AttentionCaseResult result{.o = {o.shape(), to_host(stream, o)},
                               .lse = {lse.shape(), to_host(stream, lse)},
                               .ok = c.wrong_blocks == 0};
    const AttentionTolerance allowed = attention_tolerance(dtype, scores);
    if (c.o) {
        result.max_err_o = largest_difference(result.o.values, c.o.values);
        result.ok &= *result.max_err_o <= allowed.o;
    }
    if (c.lse) {
        result.max_err_lse = largest_difference(result.lse.values, c.lse.values);
        result.ok &= *result.max_err_lse <= allowed.lse;
    }
    return result;
}

}  // namespace fovea
