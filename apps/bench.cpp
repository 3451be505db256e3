#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "apps/app.h"
#include "apps/bench/boxes.h"
#include "apps/bench/edit.h"
#include "apps/bench/guidance.h"
#include "apps/bench/inpaint.h"
#include "apps/bench/merge.h"
#include "apps/bench/methods.h"
#include "apps/bench/ops.h"
#include "apps/bench/segment.h"
#include "apps/bench/video.h"
#include "apps/generation.h"
#include "backend/error.h"
#include "backend/log.h"
#include "backend/ops/attention.h"
#include "backend/patterns/registry.h"

namespace fovea::apps {
namespace {

using Names = std::vector<std::string>;

struct BenchOptions {
    Names what, shapes, patterns, paths, tiles, merge;
    std::string json, markdown, plot, device, precision = "auto", scores = "stored";
    double seconds = 0.5;
    bench::VideoOptions video;
    bench::GuidanceOptions guidance;
    bench::EditOptions edit;
    bench::SegmentBenchOptions segment;
    int layouts = 100;
    int size = 0;  ///< of video and guidance; 0: as the model was trained
    bool profile = false;
    bool boxes = false;  ///< of inpaint
};

void save(const BenchOptions& o, const bench::Json& document, const bench::Json& merged) {
    if (!o.json.empty()) bench::save_text(o.json, fmt::format("{}\n", document.dump(1)));
    if (!o.markdown.empty()) bench::save_text(o.markdown, bench::markdown_of(merged));
    if (!o.plot.empty()) bench::save_text(o.plot, bench::plot_of(merged));
}

void merge(const BenchOptions& o) {
    require(o.what.empty() && o.shapes.empty() && o.patterns.empty() && o.paths.empty(),
            "[bench] --merge found beside something to measure, expected one of the two");
    std::vector<bench::Json> documents;
    for (const std::string& path : o.merge) documents.push_back(bench::read_results(path));
    for (const bench::Json& document : documents)
        if (document.at("device") != documents[0].at("device"))
            log::say("fovea: {} is of {}, the first file of {}: ratios mix devices\n",
                     document.at("engine").get<std::string>(),
                     document.at("device").get<std::string>(),
                     documents[0].at("device").get<std::string>());
    const bench::Json merged = bench::merge_results(documents);
    fmt::print("{}", bench::markdown_of(merged));
    save(o, merged, merged);
}

/// Throws Error unless one of the shapes can have the pattern; others are skipped later.
void require_fit(const std::string& spec, const std::vector<bench::AttentionShape>& shapes) {
    for (size_t i = 0; i < shapes.size(); ++i) try {
            bench::bench_pattern(spec, shapes[i]);
            return;
        } catch (const Error&) {
            if (i + 1 == shapes.size()) throw;
        }
}

void measure(const BenchOptions& o) {
    require(!o.what.empty(),
            "[bench] nothing to measure; try fovea bench attention, or fovea bench all");
    const auto is = [&](const char* name) { return o.what[0] == name; };
    const bool methods = is("methods"), video = is("video"), guidance = is("guidance"),
               edit = is("edit"), lens = is("lens"), refer = is("refer"), inpaint = is("inpaint"),
               boxes = is("boxes"), segment = is("segment"), weight = is("weight");
    require(!(methods || video || guidance || edit || lens || refer || inpaint || boxes ||
              segment || weight) ||
                o.what.size() == 1,
            "[bench] {} found beside {}, expected alone", o.what[0], o.what.back());
    if (edit || lens || refer || weight) {
        bench::EditOptions own = o.edit;
        own.model = o.video.model;
        own.precision = o.precision;
        own.markdown = o.markdown;
        own.pictures = o.video.picture;
        own.methods = o.video.methods;
        own.values.steps = o.video.steps;
        own.values.cfg = o.video.cfg;
        vk::Device device(o.device);
        if (refer) return bench::bench_refer(device, own);
        if (weight) return bench::bench_weight(device, own);
        return edit ? bench::bench_edit(device, own) : bench::bench_lens(device, own);
    }
    if (segment) {
        bench::SegmentBenchOptions own = o.segment;
        own.model = o.video.model;
        own.precision = o.precision;
        own.markdown = o.markdown;
        own.json = o.json;
        own.cases = o.edit.cases;
        own.limit = o.edit.limit;
        vk::Device device(o.device);
        return bench::bench_segment(device, own);
    }
    if (inpaint) {
        vk::Device device(o.device);
        return bench::bench_inpaint(device, {.model = o.video.model,
                                             .precision = o.precision,
                                             .markdown = o.markdown,
                                             .json = o.json,
                                             .cases = o.edit.cases,
                                             .pictures = o.video.picture,
                                             .methods = o.video.methods,
                                             .limit = o.edit.limit,
                                             .boxes = o.boxes,
                                             .steps = o.video.steps,
                                             .cfg = o.video.cfg,
                                             .seed = o.video.seed});
    }
    if (boxes) {
        vk::Device device(o.device);
        return bench::bench_boxes(device, {.model = o.video.model,
                                           .precision = o.precision,
                                           .json = o.json,
                                           .markdown = o.markdown,
                                           .picture = o.video.picture,
                                           .cases = o.edit.cases,
                                           .layouts = o.layouts,
                                           .steps = o.video.steps,
                                           .cfg = o.video.cfg,
                                           .seed = o.video.seed});
    }
    if (video) {
        vk::Device device(o.device);
        bench::VideoOptions own = o.video;
        own.precision = o.precision;
        own.markdown = o.markdown;
        if (o.size > 0) own.size = o.size;
        bench::bench_video(device, own);
        return;
    }
    if (guidance) {
        vk::Device device(o.device);
        bench::GuidanceOptions own = o.guidance;
        own.precision = o.precision;
        own.json = o.json;
        own.markdown = o.markdown;
        own.model = o.video.model;
        own.picture = o.video.picture;
        own.steps = o.video.steps;
        own.seed = o.video.seed;
        if (o.size > 0) own.size = o.size;
        bench::bench_guidance(device, own);
        return;
    }
    const auto wants = [&](const char* name) {
        return std::any_of(o.what.begin(), o.what.end(),
                           [&](const std::string& what) { return what == name || what == "all"; });
    };
    vk::Device device(o.device);
    const bool cpu = device.info().type == vk::DeviceType::cpu;
    const bool half = o.precision == "fp16" || (o.precision == "auto" && !cpu);
    // Mistakes in names show before anything runs.
    const auto attention = bench::attention_shapes(o.shapes, cpu);
    const auto gemm = bench::gemm_shapes(o.shapes, cpu);
    const auto conv = bench::conv_shapes(o.shapes, cpu);
    const auto models = bench::model_shapes(o.shapes, cpu);
    auto grids = attention;
    for (const auto& model : models) grids.push_back(model.attention());
    for (const std::string& spec : o.patterns) require_fit(spec, grids);
    for (const std::string& path : o.paths)
        if (path != "all") parse_path(path);

    bench::Run run{.device = device,
                   .peaks = measure_peaks(device),
                   .dtype = half ? DType::f16 : DType::f32,
                   .scores = parse_scores(o.scores),
                   .seconds = o.seconds,
                   .paths = o.paths.empty() ? Names{"automatic"} : o.paths,
                   .tiles = o.tiles,
                   .profile = o.profile};
    device.trim();
    fmt::print("{}, {}\n", device.info().name, device.info().driver);
    if (run.peaks.matrix > 0)
        fmt::print("peaks here: {:.1f} TFLOP/s of fp16 matrices, ", run.peaks.matrix / 1e12);
    else
        fmt::print("peaks here: no fp16 matrices ({}), ", run.peaks.matrix_why);
    fmt::print("{:.3f} TFLOP/s of fp32 fused multiply-adds, {:.1f} GB/s\n", run.peaks.fma / 1e12,
               run.peaks.bandwidth / 1e9);

    if (wants("attention")) bench::bench_attention(run, attention, o.patterns);
    if (wants("gemm")) bench::bench_gemm(run, gemm);
    if (wants("conv")) bench::bench_conv(run, conv);
    if (wants("model")) bench::bench_model(run, models, o.patterns);
    if (methods) {
        const std::string table = bench::bench_methods(run, models, o.video.densities);
        if (!o.markdown.empty()) bench::save_text(o.markdown, table);
        return;
    }
    bench::Json document = bench::to_json(run);
    if (wants("startup")) document["startup"] = bench::bench_startup(o.device, cpu);
    save(o, document, bench::merge_results({document}));
    const auto wrong = std::count_if(run.rows.begin(), run.rows.end(),
                                     [](const bench::Row& row) { return !row.ok; });
    require(wrong == 0, "[bench] {} of {} rows are WRONG", wrong, run.rows.size());
    require(!run.rows.empty() || wants("startup"),
            "[bench] none of these shapes is one of {}'s that could run", o.what[0]);
}

void add_video_options(CLI::App& command, bench::VideoOptions& o) {
    command
        .add_option("--densities", o.densities,
                    "Of methods and video: shares of all pairs that methods are set to compute")
        ->delimiter(',')
        ->check(CLI::Range(0.01, 1.0))
        ->capture_default_str();
    command
        .add_option(
            "--methods", o.methods,
            "Of video: radial, neighborhood, reordered, rectified, Re-ttention, \"Re-ttention of "
            "reordered\", cache; of edit: edit, \"drawn anew\", \"SDEdit 0.5\", 0.7, 0.85, \"round "
            "trip\", of clips \"edit first+previous\" and \"edit none\" as well; of inpaint: "
            "inpaint, \"inpaint with PAIntA\", pasted, smooth (default: all)")
        ->delimiter(',');
    command.add_option("--clips", o.clips, "Of video: prompts")
        ->check(CLI::Range(1, 1000))
        ->capture_default_str();
    command.add_option("--frames", o.frames, "Of video")
        ->check(CLI::Range(2, 64))
        ->capture_default_str();
    command.add_option("--steps", o.steps, "Of video, guidance, edit, weight, inpaint and boxes")
        ->check(CLI::Range(2, 200))
        ->capture_default_str();
    command
        .add_option(
            "--dense-steps", o.dense_steps,
            "Of video: first steps that stay dense, within the density asked for; a row each")
        ->delimiter(',')
        ->check(CLI::Range(0, 200))
        ->capture_default_str();
    command
        .add_option("--seed", o.seed,
                    "Of video, guidance, inpaint and boxes: the first clip's or picture's")
        ->check(refuse_minus);
    command.add_option(
        "--model", o.model,
        "Of video, guidance, edit, weight, lens, refer, segment, inpaint and boxes: model "
        "folder");
    command.add_option(
        "--picture", o.picture,
        "Write as PNG; of video: strips of the first clip, dense and by each row; "
        "of guidance: the first pictures of each row; of edit and inpaint: every "
        "picture or clip and what each method makes of it; of boxes: all, without and with "
        "them");
}

void add_guidance_options(CLI::App& command, bench::GuidanceOptions& o) {
    command.add_option("--count", o.count, "Of guidance: prompts, a picture each")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str();
    command
        .add_option("--batch", o.batch,
                    "Of guidance: pictures computed together; steps of few wait for launches more "
                    "than for work")
        ->check(CLI::Range(1, 256))
        ->capture_default_str();
    command
        .add_option("--prompts", o.prompts,
                    "Of guidance: a file with a prompt a line (default: objects of the model)")
        ->check(CLI::ExistingFile);
    command.add_flag("--entropy-scale", o.entropy_scale,
                     "Of guidance: as fovea generate's, in all rows");
    command
        .add_option("--guidance", o.guidances,
                    "Of guidance: a row, as fovea generate takes it; may be given again and again "
                    "(default: none, cfg, pag, softpag, seg, skip and some of them together)")
        ->expected(1)
        ->take_all();
}

void add_edit_options(CLI::App& command, bench::EditOptions& o) {
    command.add_option("--cases", o.cases,
                       "Of edit, weight, lens, refer, inpaint and (for its ceiling and subjects) "
                       "boxes: the folder that "
                       "training/edit_cases.py wrote; of segment also that of "
                       "training/evaluate_segment.py --cases");
    command
        .add_option(
            "--limit", o.limit,
            "Of edit, weight, lens, refer, segment and inpaint: only the first cases; 0: all")
        ->check(CLI::Range(0, 100000));
    const auto part = [&](const char* name, float& value) {
        command.add_option(name, value, "Of edit and weight, as of fovea edit")
            ->check(CLI::Range(0.0f, 1.0f))
            ->capture_default_str();
    };
    part("--strength", o.values.strength);
    part("--keep-cross", o.values.keep_cross);
    part("--keep-self", o.values.keep_self);
    part("--mask", o.values.mask);
    command.add_flag("--exchange", o.values.exchange, "Of edit, as of fovea edit");
}

void add_segment_options(CLI::App& command, bench::SegmentBenchOptions& o) {
    command
        .add_option("--everything", o.everything,
                    "Of segment: so many of the first pictures are asked for everything "
                    "(default: all)")
        ->check(CLI::Range(0, 100000));
    command.add_option("--grid", o.grid, "Of segment: points along a side for everything")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& app) {
    auto* command = app.add_subcommand(
        "bench",
        "How fast ops and models run on this device, checked against the reference as they run");
    auto o = std::make_shared<BenchOptions>();
    command
        ->add_option(
            "what", o->what,
            "attention, gemm, conv, model, startup or all of these, several may be; or "
            "methods, video, guidance, edit, weight, lens, refer, segment, inpaint or boxes, alone")
        ->check(CLI::IsMember({"attention", "gemm", "conv", "model", "startup", "all", "methods",
                               "video", "guidance", "edit", "weight", "lens", "refer", "segment",
                               "inpaint", "boxes"}));
    command
        ->add_option(
            "--shapes", o->shapes,
            "Sets of shapes, see below, HEADS:GRID:HEAD_DIM for attention or MxKxN for gemm "
            "(default: small on CPUs, all others on GPUs)")
        ->delimiter(',');
    command
        ->add_option("--patterns", o->patterns,
                     "Attention patterns, see below (default: those of each set); dense always "
                     "runs beside them")
        ->delimiter(',');
    command
        ->add_option("--paths", o->paths, "Paths: automatic (the fastest), scalar, khr, nv2 or all")
        ->delimiter(',');
    command
        ->add_option(
            "--tiles", o->tiles,
            "Tiles of gemm and conv on matrix units, each timed: as in FOVEA_GEMM_TILE, or "
            "all (default: the one that the shape would get)")
        ->delimiter(',');
    add_video_options(*command, o->video);
    add_guidance_options(*command, o->guidance);
    command->add_option("--size", o->size,
                        "Of video and guidance: pixels a side (default: 128, 256)");
    add_edit_options(*command, o->edit);
    add_segment_options(*command, o->segment);
    command->add_flag("--boxes", o->boxes, "Of inpaint: holes are boxes around the objects");
    command->add_option("--layouts", o->layouts, "Of boxes: pictures, of one and of two objects")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str();
    command->add_flag("--profile", o->profile, "Print the time by op of each row's last run");
    command->add_option("--seconds", o->seconds, "Repeats of a row last about this long")
        ->check(CLI::Range(0.0, 60.0))
        ->capture_default_str();
    command->add_option("--precision", o->precision, "auto (fp16 on GPUs), fp16 or fp32")
        ->check(CLI::IsMember({"auto", "fp16", "fp32"}))
        ->capture_default_str();
    command
        ->add_option("--scores", o->scores,
                     "Of attention: stored (as the tensors), or int8 (SageAttention; its "
                     "quantisation is part of the time)")
        ->check(CLI::IsMember({"stored", "int8"}))
        ->capture_default_str();
    command->add_option("--json", o->json, "Write the rows");
    command->add_option("--markdown", o->markdown, "Write tables");
    command->add_option("--plot", o->plot, "Write bars as SVG");
    command
        ->add_option("--merge", o->merge,
                     "Measure nothing: put files of --json and of apps/bench/peers/torch_peers.py "
                     "into one table with ratios")
        ->expected(1, 100);
    command->add_option("--device", o->device, "Device index or part of its name (see fovea info)");
    std::string patterns;
    for (const std::string& line : pattern_help())
        if (!line.starts_with("block_sparse") && !line.starts_with("reordered"))
            patterns += fmt::format("  {}\n", line);
    command->footer(fmt::format(
        "Times are medians of device timestamps after a warm-up, with inputs changed between\n"
        "repeats. Every row is checked first: a wrong kernel has no time, and the exit code is 1.\n"
        "peak and memory are shares of what this device reached in the same run.\n"
        "model: blocks and denoisers of published models with random weights; patterns are those "
        "of\n"
        "their self-attention, sparse rows say how much faster than dense the whole block is.\n"
        "methods: sparse attention without training on structured inputs of those models' video\n"
        "shapes, time and error against dense: fovea bench methods --shapes wan1.3b-480p\n"
        "video: the same on the model's own clips, PSNR and SSIM against dense\n"
        "guidance: pictures by each guidance, what the evaluator recognises, the time of a step\n"
        "edit, lens: fovea edit beside drawing anew and SDEdit, and whether words' maps point at\n"
        "their objects, on pictures with masks: fovea bench edit --cases FOLDER\n"
        "edit of clips (training/edit_cases.py --clips): also with frames shared as by fovea edit\n"
        "--shared-frames first,previous and none. Recognised in the middle frame, and in what "
        "share\n"
        "of all; PSNR is the frames' mean; warping error: how much what may change changes from\n"
        "frame to frame, of 255, followed along the source's motion. In the source that is small\n"
        "whatever moves, so the rest is flicker, or a motion of the result's own\n"
        "lens also times passes of the model that are read, and that are not\n"
        "weight: what fovea edit --weight does to the cases' objects and styles\n"
        "refer: how well the picture model alone finds the same objects by their names, and the\n"
        "segmentation model by what that found\n"
        "segment: masks by points, boxes, words and of everything against exact ones, with and\n"
        "without what draws their edges\n"
        "inpaint: objects of the same cases cut out and others asked for in their place\n"
        "boxes: whether things come where fovea generate --box asks, by what the evaluator sees\n\n"
        "Shapes:\n{}\nPatterns:\n{}"
        "  block_sparse:BLOCK:density=SHARE: blocks by chance\n"
        "  reordered:BLOCK: six orders of the axes, a head each in turn, and a band of blocks\n"
        "  perturbed[:SHARE]: that share of the heads perturbed with u = 1, which copies values\n\n"
        "Examples:\n"
        "  fovea bench attention gemm\n"
        "  fovea bench model --shapes wan14b-480p --patterns radial:decay=0.2:sink=1\n"
        "  fovea bench attention --shapes flux,targets --paths all --json own.json\n"
        "  fovea bench attention --shapes 24:30x48x80:128 --patterns neighborhood:18x24x24\n"
        "  fovea bench --merge own.json torch.json --markdown benchmarks.md --plot bars.svg",
        bench::shapes_help(), patterns));
    command->callback([o] { o->merge.empty() ? measure(*o) : merge(*o); });
}

}  // namespace fovea::apps
