#include "apps/plan_case.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "apps/app.h"

namespace fovea::apps {
namespace {

using Json = nlohmann::json;

std::string count_text(double n) {
    const std::string digits = fmt::format("{:.0f}", n);
    std::string text;
    for (size_t i = 0; i < digits.size(); ++i) {
        if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
        text.push_back(digits[i]);
    }
    return text;
}

std::string time_text(double seconds) {
    if (seconds >= 1) return fmt::format("{:.3g} s", seconds);
    return fmt::format("{:.3g} ms", 1000 * seconds);
}

std::string bytes_text(uint64_t bytes) {
    if (bytes >= 1 << 20) return size_text(bytes);
    return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
}

std::string flop_text(double flops) {
    const char* units[] = {"", "k", "M", "G", "T", "P", "E"};
    size_t unit = 0;
    for (; flops >= 1000 && unit < 6; ++unit) flops /= 1000;
    return fmt::format("{:.4g} {}FLOP", flops, units[unit]);
}

std::string extents(const std::array<uint32_t, 3>& box, size_t rank) {
    const auto begin = box.end() - static_cast<std::ptrdiff_t>(rank);
    return fmt::format("{}", fmt::join(begin, box.end(), "x"));
}

std::string numbers(const std::vector<uint32_t>& values) {
    return fmt::format("{}", fmt::join(values, "x"));
}

void print_box(const PlanCase& c, const std::string& q, const std::string& k, double visited,
               double full, double all) {
    const double pairs = double{1} * c.q_len * (double{1} * c.kv_len + c.extra);
    fmt::print("   {:<9} {:<9} {:>14} {:>6.2f} % {:>14} {:>14} {:>8.2f}x\n", q, k,
               count_text(visited), 100 * visited / all, count_text(full),
               count_text(visited - full), pairs / (visited * c.tile.q * c.tile.k));
}

void print_boxes(const PlanCase& c, size_t most) {
    const PlanCase::Totals t = c.totals();
    fmt::print("\nblocks of {} queries x {} keys{}\n", c.tile.q, c.tile.k,
               c.boxes.empty()
                   ? ""
                   : fmt::format(", a head, in the best of {} pairs of boxes", c.boxes.size()));
    fmt::print("   {:<9} {:<9} {:>23} {:>14} {:>14} {:>9}\n", "queries", "keys", "visited", "full",
               "partial", "bound");
    if (c.boxes.empty())
        print_box(c, std::to_string(c.tile.q), std::to_string(c.tile.k), t.visited / c.heads,
                  t.full / c.heads, t.all / c.heads);
    const size_t rank = c.grid.shape.size();
    for (size_t i = 0; i < std::min(c.boxes.size(), most); ++i) {
        const BoxCost& cost = c.boxes[i];
        print_box(c, extents(cost.boxes.q, rank), extents(cost.boxes.k, rank),
                  static_cast<double>(cost.visited), static_cast<double>(cost.full),
                  static_cast<double>(cost.query_tiles) * static_cast<double>(cost.key_tiles));
    }
}

double seconds_of(const PlanCase& c, const PlanModel& model, double full, double partial) {
    const double block = c.flops(double{1} * c.tile.q * c.tile.k);
    return full * block / model.rate.full + partial * block / model.rate.partial;
}

/// Against the asked setting: by predicted time, else by blocks.
double gain(const PlanCase& c, const PlanModel* model, const PerfectSetting& setting) {
    const auto visited = static_cast<double>(setting.cost.visited);
    const auto asked = static_cast<double>(c.boxes.front().visited);
    const auto full = static_cast<double>(c.boxes.front().full);
    if (!model) return asked / visited;
    return seconds_of(c, *model, full, asked - full) / seconds_of(c, *model, visited, 0);
}

void print_settings(const PlanCase& c, const PlanModel* model) {
    fmt::print("\nnearest settings without partial blocks, and what they gain over this one{}\n",
               model ? "" : " in blocks");
    fmt::print("   {:<12} {:<12} {:<9} {:<9} {:>9} {:>14} {:>8}\n", "window", "stride", "queries",
               "keys", "kept", "visited", "gain");
    const size_t rank = c.grid.shape.size();
    for (const PerfectSetting& s : c.settings)
        fmt::print("   {:<12} {:<12} {:<9} {:<9} {:>7.3f} % {:>14} {:>7.2f}x\n",
                   numbers(s.options.window), numbers(s.options.stride),
                   extents(s.cost.boxes.q, rank), extents(s.cost.boxes.k, rank), 100 * s.kept_share,
                   count_text(static_cast<double>(s.cost.visited)), gain(c, model, s));
    if (c.settings.empty()) fmt::print("   none\n");
}

void print_prediction(const PlanCase& c, const PlanModel& model) {
    const Prediction p = predict(c, model);
    const auto rate = [](double flops) { return fmt::format("{}/s", flop_text(flops)); };
    fmt::print("\ntime, {}\n", model.source);
    fmt::print("   dense        {:>10}   {} at {}\n", time_text(p.dense),
               flop_text(c.flops(c.all_pairs())), rate(model.rate.dense));
    const double block = c.flops(double{1} * c.tile.q * c.tile.k);
    const PlanCase::Totals t = c.totals();
    fmt::print("   full blocks  {:>10}   {} at {}\n", time_text(p.full), flop_text(t.full * block),
               rate(model.rate.full));
    fmt::print("   partial      {:>10}   {} at {}\n", time_text(p.partial),
               flop_text((t.visited - t.full) * block), rate(model.rate.partial));
    fmt::print("   pattern      {:>10}   {:.2f}x faster than dense\n", time_text(p.total()),
               p.dense / p.total());
}

Json to_json(const BoxCost& cost, size_t rank) {
    return {{"queries", extents(cost.boxes.q, rank)},
            {"keys", extents(cost.boxes.k, rank)},
            {"query_tiles", cost.query_tiles},
            {"key_tiles", cost.key_tiles},
            {"visited", cost.visited},
            {"full", cost.full},
            {"partial", cost.visited - cost.full}};
}

}  // namespace

PlanCase::Totals PlanCase::totals() const {
    Totals t;
    std::vector<uint32_t> heads_of(plan.lists.size(), plan.list_of_head.empty() ? heads : 0);
    for (const uint32_t list : plan.list_of_head) ++heads_of[list];
    for (size_t i = 0; i < plan.lists.size(); ++i) {
        const BlockList& list = plan.lists[i];
        const double n = heads_of[i];
        t.kept_pairs += n * static_cast<double>(list.kept_pairs);
        t.visited += n * static_cast<double>(list.visited_blocks());
        t.full += n * static_cast<double>(list.full_blocks());
        t.all += n * list.query_tiles() * (list.key_tiles() + list.extra_tiles());
    }
    return t;
}

uint64_t PlanCase::plan_bytes() const {
    uint64_t bytes = 0;
    for (const BlockList& list : plan.lists) bytes += list.bytes();
    return bytes;
}

uint64_t PlanCase::tensor_bytes() const {
    const uint64_t rows = uint64_t{q_len} + kv_len + extra;  // of q and k, and of v and o
    return rows * (head_dim + v_dim) * batch * heads * (dtype == DType::f16 ? 2 : 4);
}

double PlanCase::all_pairs() const {
    return double{1} * heads * q_len * (double{1} * kv_len + extra);
}

Prediction predict(const PlanCase& c, const PlanModel& model) {
    const PlanCase::Totals t = c.totals();
    return {c.flops(c.all_pairs()) / model.rate.dense, seconds_of(c, model, t.full, 0),
            seconds_of(c, model, 0, t.visited - t.full)};
}

void print_plan(const PlanCase& c, const PlanModel* model, const std::string& no_model,
                size_t boxes) {
    const PlanCase::Totals t = c.totals();
    const uint64_t on_grid = c.grid.tokens();
    fmt::print("{}\n", c.name);
    fmt::print("   tokens       {}{}{}, {} heads of {}, batch {}\n", count_text(c.q_len),
               c.kv_len != c.q_len ? fmt::format(" queries, {} keys", count_text(c.kv_len))
               : c.grid.shape.empty()
                   ? ""
                   : fmt::format(" ({}{})", numbers(c.grid.shape),
                                 c.q_len > on_grid ? fmt::format(" + {}", c.q_len - on_grid) : ""),
               c.extra ? fmt::format(" and {} extra keys", c.extra) : "", c.heads, c.head_dim,
               c.batch);
    fmt::print("   pairs kept   {:.3f} %, {:.1f} keys a query\n",
               100 * t.kept_pairs / c.all_pairs(), t.kept_pairs / c.heads / c.q_len);
    fmt::print("   FLOP bound   {:.2f}x: dense {}, kept {}\n", c.all_pairs() / t.kept_pairs,
               flop_text(c.flops(c.all_pairs())), flop_text(c.flops(t.kept_pairs)));
    fmt::print("   memory       q, k, v, o {} at {}; plan {}, made in {}\n",
               bytes_text(c.tensor_bytes()), c.dtype == DType::f16 ? "fp16" : "fp32",
               bytes_text(c.plan_bytes()), time_text(c.plan_seconds));
    print_boxes(c, boxes);
    if (model)
        print_prediction(c, *model);
    else
        fmt::print("\nno times: {}\n", no_model);
    if (c.window) print_settings(c, model);
}

void print_plan_json(const PlanCase& c, const PlanModel* model, const std::string& no_model,
                     size_t boxes) {
    const PlanCase::Totals t = c.totals();
    const size_t rank = c.grid.shape.size();
    Json json{{"pattern", c.name},
              {"grid", c.grid.shape},
              {"q_len", c.q_len},
              {"kv_len", c.kv_len},
              {"extra", c.extra},
              {"heads", c.heads},
              {"head_dim", c.head_dim},
              {"v_dim", c.v_dim},
              {"batch", c.batch},
              {"precision", c.dtype == DType::f16 ? "fp16" : "fp32"},
              {"tile", {c.tile.q, c.tile.k}},
              {"kept_share", t.kept_pairs / c.all_pairs()},
              {"flop_bound", c.all_pairs() / t.kept_pairs},
              {"dense_flops", c.flops(c.all_pairs())},
              {"kept_flops", c.flops(t.kept_pairs)},
              {"blocks",
               {{"visited", t.visited},
                {"full", t.full},
                {"partial", t.visited - t.full},
                {"all", t.all}}},
              {"plan_bytes", c.plan_bytes()},
              {"plan_seconds", c.plan_seconds},
              {"tensor_bytes", c.tensor_bytes()},
              {"boxes", Json::array()}};
    for (size_t i = 0; i < std::min(c.boxes.size(), boxes); ++i)
        json["boxes"].push_back(to_json(c.boxes[i], rank));
    if (model) {
        const Prediction p = predict(c, *model);
        json["time"] = {{"source", model->source},
                        {"path", name_of(model->rate.path)},
                        {"dense_flops_per_second", model->rate.dense},
                        {"full_flops_per_second", model->rate.full},
                        {"partial_flops_per_second", model->rate.partial},
                        {"dense_seconds", p.dense},
                        {"full_seconds", p.full},
                        {"partial_seconds", p.partial},
                        {"seconds", p.total()},
                        {"speed_up", p.dense / p.total()}};
    } else {
        json["no_time"] = no_model;
    }
    if (c.window) json["perfect"] = Json::array();
    for (const PerfectSetting& s : c.settings)
        json["perfect"].push_back({{"window", s.options.window},
                                   {"stride", s.options.stride},
                                   {"boxes", to_json(s.cost, rank)},
                                   {"kept_share", s.kept_share},
                                   {"gain", gain(c, model, s)}});
    fmt::print("{}\n", json.dump(2));
}

}  // namespace fovea::apps
