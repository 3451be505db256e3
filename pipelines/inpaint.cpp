#include "pipelines/inpaint.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>

#include "backend/log.h"
#include "backend/ops/elementwise.h"
#include "vision/prompt_words.h"
#include "vision/taps/painta.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

using Job = Inpaint::Job;
using Request = Inpaint::Request;

/// A job on its way.
struct Canvas {
    Image picture;
    Mask open;  ///< what is not filled yet
    std::vector<Tile> tiles;
};

/// A tile of one picture as the model gets it.
struct Piece {
    size_t job;
    uint64_t seed;
    const Tile* tile;
    Image known;  ///< (tile) its holes filled smoothly
    Mask cells;   ///< (latent) to be drawn
};

void validate(const Request& request) {
    validate(static_cast<const DenoiseRequest&>(request), "inpaint");
    require(!request.jobs.empty(), "[inpaint] no picture given");
    require(
        request.window >= 256 && request.window <= kMaxSide && request.window % kSideMultiple == 0,
        "[inpaint] window {} found, expected a multiple of {} from 256 to {}", request.window,
        kSideMultiple, kMaxSide);
    for (const Job& job : request.jobs) {
        require(job.hole.width == job.picture.width && job.hole.height == job.picture.height,
                "[inpaint] the mask has {}×{} pixels, the picture {}×{}: resize one of them",
                job.hole.width, job.hole.height, job.picture.width, job.picture.height);
        require(job.hole.count() > 0, "[inpaint] the mask is empty: white is what will be filled");
    }
}

// Every tile has noise of its own.
uint64_t seed_of(uint64_t seed, size_t tile) {
    return seed + tile * 0x9e3779b97f4a7c15u;
}

Piece piece_of(const Canvas& canvas, size_t job, uint64_t seed, const Tile& tile) {
    const Mask open = crop(canvas.open, tile.window);
    const Image smooth = membrane(crop(canvas.picture, tile.window), open);
    return {.job = job,
            .seed = seed,
            .tile = &tile,
            .known = resize(smooth, tile.width, tile.height),
            .cells = coarsen(open, tile.width, tile.height, Autoencoder::kDown)};
}

// A token is open where one of its cells is.
Painta::Sample painta_sample(const Model& model, const Piece& piece, const std::string& prompt) {
    const auto patch = static_cast<int>(model.dit.config().patch);
    Painta::Sample sample{
        .hole = coarsen(piece.cells, piece.cells.width, piece.cells.height, patch).hole,
        .words = {}};
    const auto words =
        model.tokenizer.encode(prompt, static_cast<int>(model.text.config().length)).words;
    for (size_t i = 0; i < words.size(); ++i)
        if (!names_nothing(words[i])) sample.words.push_back(i);
    return sample;
}

/// Tiles of one size from noise to pixels.
class Batch {
  public:
    Batch(vk::Stream& stream, const Model& model, const Request& request,
          const std::vector<Piece>& pieces, std::function<void(int, int)> on_step)
        : request_(request), on_preview_(request.on_preview) {
        request_.on_step = std::move(on_step);
        request_.each_prompt.clear();
        std::vector<uint64_t> seeds;
        std::vector<float> open;
        const int64_t channels = model.dit.config().latent_channels;
        for (const Piece& piece : pieces) {
            const Job& job = request.jobs[piece.job];
            request_.each_prompt.push_back(job.prompt);
            seeds.push_back(piece.seed);
            for (const uint8_t cell : piece.cells.hole)
                open.insert(open.end(), static_cast<size_t>(channels), cell);
        }
        const Mask& cells = pieces[0].cells;
        const Shape latent{cells.height, cells.width, channels};
        const auto count = static_cast<int64_t>(pieces.size());
        MethodHooks hooks;
        if (request.painta) {
            std::vector<Painta::Sample> samples;
            for (const Piece& piece : pieces)
                samples.push_back(painta_sample(model, piece, request.jobs[piece.job].prompt));
            painta_ = std::make_unique<Painta>(
                stream, model.dit, model.dit.grid({count, latent[0], latent[1], latent[2]}),
                std::move(samples));
            hooks = [this](const Evaluation& at) { return painta_->hooks(at.t); };
        }
        denoiser_ = std::make_unique<Denoiser>(stream, model, request_, latent, seeds, hooks);
        std::vector<Tensor> latents;  // one after the other, as decode_singly()
        for (const Piece& piece : pieces)
            latents.push_back(convert(
                stream,
                model.autoencoder.encode(stream, to_device(stream, {piece.known}, model.dtype)),
                DType::f32));
        const Tensor z = stacked(stream, latents);
        denoiser_->hold(z, upload(stream, open, z.shape(), DType::f32));
    }

    std::vector<Image> run() const {
        std::function<void(int, const Tensor&)> on_preview;
        if (on_preview_)
            on_preview = [&](int, const Tensor& z) { on_preview_(denoiser_->decode_singly(z)); };
        return denoiser_->decode_singly(denoiser_->run(on_preview));
    }

  private:
    DenoiseRequest request_;
    std::function<void(const std::vector<Image>&)> on_preview_;
    std::unique_ptr<Painta> painta_;
    std::unique_ptr<Denoiser> denoiser_;
};

// Into the picture, where the tile fills it.
void put(Canvas& canvas, const Tile& tile, const Image& drawn) {
    const Box& window = tile.window;
    const Image fill = resize(drawn, window.width(), window.height());
    // What lies outside the picture, mirrored, is open where the hole that it shows is.
    const Image done = blend(crop(canvas.picture, window), fill, crop(canvas.open, window));
    for (int y = 0; y < window.height(); ++y)
        for (int x = 0; x < window.width(); ++x) {
            if (!tile.fills.at(x, y)) continue;
            const auto to =
                static_cast<size_t>(y + window.top) * static_cast<size_t>(canvas.picture.width) +
                static_cast<size_t>(x + window.left);
            const auto from = static_cast<size_t>(y) * static_cast<size_t>(window.width()) +
                              static_cast<size_t>(x);
            std::copy_n(&done.rgb[3 * from], 3, &canvas.picture.rgb[3 * to]);
            canvas.open.at(x + window.left, y + window.top) = 0;
        }
}

}  // namespace

std::vector<Tile> Inpaint::plan(const Model& model, const Mask& hole, int window) {
    return plan_tiles(hole, {.usual = std::min(static_cast<int>(model.dit.config().size), window),
                             .most = window,
                             .least = kMinSide,
                             .multiple = kSideMultiple});
}

std::vector<Inpaint::Result> Inpaint::run(vk::Stream& stream, const Model& model,
                                          const Request& request) {
    validate(request);
    std::vector<Canvas> canvases;
    size_t rounds = 0;
    for (const Job& job : request.jobs) {
        canvases.push_back({job.picture, job.hole, plan(model, job.hole, request.window)});
        rounds = std::max(rounds, canvases.back().tiles.size());
    }
    // The n-th tile of every picture at once, those of one size in one batch.
    std::vector<std::vector<size_t>> batches;  // jobs
    std::vector<size_t> round_of;
    for (size_t round = 0; round < rounds; ++round) {
        std::map<std::pair<int, int>, std::vector<size_t>> by_size;
        for (size_t job = 0; job < canvases.size(); ++job)
            if (const auto& tiles = canvases[job].tiles; round < tiles.size())
                by_size[{tiles[round].width, tiles[round].height}].push_back(job);
        for (const auto& [size, jobs] : by_size) {
            const auto most = static_cast<size_t>(
                std::min<int64_t>(kMaxBatch, samples_that_bind(stream.device().info(), model,
                                                               request, size.first, size.second)));
            for (size_t begin = 0; begin < jobs.size(); begin += most) {
                const auto first = jobs.begin() + static_cast<long>(begin);
                batches.emplace_back(
                    first, first + static_cast<long>(std::min(most, jobs.size() - begin)));
                round_of.push_back(round);
            }
        }
    }
    const int total = request.steps * static_cast<int>(batches.size());
    if (request.on_step) request.on_step(0, total);
    for (size_t b = 0; b < batches.size(); ++b) {
        std::vector<Piece> pieces;
        for (const size_t job : batches[b])
            pieces.push_back(piece_of(canvases[job], job,
                                      seed_of(request.jobs[job].seed, round_of[b]),
                                      canvases[job].tiles[round_of[b]]));
        const int before = request.steps * static_cast<int>(b);
        std::function<void(int, int)> on_step;
        if (request.on_step)
            on_step = [&](int done, int) { request.on_step(before + done, total); };
        const auto drawn = Batch(stream, model, request, pieces, on_step).run();
        for (size_t i = 0; i < pieces.size(); ++i)
            put(canvases[pieces[i].job], *pieces[i].tile, drawn[i]);
    }
    std::vector<Result> results;
    for (size_t job = 0; job < canvases.size(); ++job) {
        Canvas& canvas = canvases[job];
        const Seam seam = seam_of(canvas.picture, request.jobs[job].hole);
        results.push_back({.picture = std::move(canvas.picture),
                           .tiles = static_cast<int>(canvas.tiles.size()),
                           .seam = seam});
    }
    return results;
}

}  // namespace fovea
