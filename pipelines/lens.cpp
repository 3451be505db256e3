#include "pipelines/lens.h"

#include "backend/ops/elementwise.h"
#include "vision/transfer.h"

namespace fovea {
namespace {

using Request = Lens::Request;

// The hooked passes over a picture's latent at the times of the request.
void read_picture(vk::Stream& stream, const Model& model, const Request& request,
                  const Denoiser& run, const Image& picture) {
    const Tensor latent =
        convert(stream, model.autoencoder.encode(stream, to_device(stream, {picture}, model.dtype)),
                DType::f32);
    const Tensor noise = run.start();
    const auto steps = static_cast<int>(request.times.size());
    for (int i = 0; i < steps; ++i) {
        if (request.cancel && *request.cancel) throw Cancelled();
        const float t = request.times[static_cast<size_t>(i)];
        run.velocity(linear_combination(stream, {{1 - t, latent}, {t, noise}}),
                     {.step = i, .steps = steps, .t = t});
        stream.wait();
        if (request.on_step) request.on_step(i + 1, steps);
    }
}

std::vector<Lens::Map> to_maps(vk::Stream& stream, const std::vector<Taps::Map>& kept,
                               size_t words) {
    std::vector<Lens::Map> maps;
    for (const auto& map : kept) {
        const int64_t heads = map.values.dim(1);
        const auto tokens = static_cast<size_t>(map.values.dim(2)),
                   length = static_cast<size_t>(map.values.dim(3));
        const auto values = to_host(stream, map.values);
        for (int64_t head = 0; head < heads; ++head) {
            std::vector<float> shares;
            for (size_t token = 0; token < tokens; ++token) {
                const auto row =
                    values.begin() + static_cast<std::ptrdiff_t>(
                                         (static_cast<size_t>(head) * tokens + token) * length);
                shares.insert(shares.end(), row, row + static_cast<std::ptrdiff_t>(words));
            }
            maps.push_back({map.step, map.layer, heads > 1 ? head : -1, std::move(shares)});
        }
    }
    return maps;
}

}  // namespace

std::vector<float> Lens::Result::heat(const Map& map, const std::vector<size_t>& places) const {
    std::vector<float> heat(static_cast<size_t>(rows * columns));
    for (size_t token = 0; token < heat.size(); ++token) {
        for (const size_t place : places) heat[token] += map.shares[token * words.size() + place];
        heat[token] /= static_cast<float>(places.size());
    }
    return heat;
}

Lens::Result Lens::run(vk::Stream& stream, const Model& model, const Request& asked) {
    Request request = asked;
    validate_sides(request.width, request.height, "lens");
    validate(request, "lens");
    const auto length = static_cast<int>(model.text.config().length);
    Result result;
    result.words = model.tokenizer.encode(request.prompt, length).words;
    require(!result.words.empty(), "[lens] the prompt \"{}\" has no word that the model knows",
            request.prompt);
    for (const float t : request.times)
        require(t > 0 && t <= 1, "[lens] time {} found, expected above 0 (picture) up to 1 (noise)",
                t);
    if (request.picture) request.cfg = 1;  // nothing is drawn: the prompt's branch alone

    const Shape latent{request.height / Autoencoder::kDown, request.width / Autoencoder::kDown,
                       model.dit.config().latent_channels};
    const DitGrid grid = model.dit.grid({1, latent[0], latent[1], latent[2]});
    const int steps = request.picture ? static_cast<int>(request.times.size()) : request.steps;
    Taps taps(model.dit, {.grid = grid, .steps = steps, .length = length}, request.taps);
    const Denoiser run(stream, model, request, latent, {{request.seed}}, [&](const Evaluation& at) {
        DitHooks hooks;
        if (request.around) hooks = request.around(std::move(hooks));
        return taps.around(std::move(hooks), at.step);
    });
    if (request.picture) {
        result.picture = resize(*request.picture, request.width, request.height);
        read_picture(stream, model, request, run, result.picture);
    } else {
        result.picture = std::move(run.decode(run.run())[0]);
    }
    result.rows = grid[1];
    result.columns = grid[2];
    result.maps = to_maps(stream, taps.words(stream), result.words.size());
    for (const auto& map : taps.received(stream)) {
        const auto values = to_host(stream, map.values);
        result.received.resize(static_cast<size_t>(grid[1] * grid[2]));
        for (size_t i = 0; i < values.size(); ++i)
            result.received[i % result.received.size()] += values[i];
    }
    return result;
}

}  // namespace fovea
