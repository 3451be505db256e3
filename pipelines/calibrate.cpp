#include "pipelines/calibrate.h"

#include "vision/methods/parse.h"

namespace fovea {

std::unique_ptr<Calibrator> measure_attention(vk::Stream& stream, const Model& model,
                                              const CalibrationRequest& request) {
    require(!request.prompts.empty(), "[calibrate] at least one prompt expected, found none");
    validate(request, "calibrate");
    validate_sides(request.width, request.height, "calibrate");
    const auto& dit = model.dit.config();
    const Shape latent{request.frames, request.height / Autoencoder::kDown,
                       request.width / Autoencoder::kDown, dit.latent_channels};
    const DitGrid grid = model.dit.grid({1, latent[0], latent[1], latent[2], latent[3]});
    MassSettings settings{.layers = dit.layers, .heads = dit.heads};
    uint64_t tokens = 1;
    for (size_t axis = 0; axis < 3; ++axis) {
        settings.grid[axis] = static_cast<uint32_t>(grid[axis]);
        tokens *= settings.grid[axis];
    }
    settings.block = request.block > 0 ? request.block : block_for(tokens);
    if (!request.range_ends.empty()) settings.range_ends = request.range_ends;
    validate(settings);
    // Few steps do not reach every range; one that has none is part of the next.
    const MassSettings all = settings;
    for (size_t r = all.range_ends.size(); r-- > 0;) {
        bool any = false;
        for (int step = 0; step < request.steps; ++step)
            any |= all.range_of(step, request.steps) == r;
        if (!any)
            settings.range_ends.erase(settings.range_ends.begin() + static_cast<std::ptrdiff_t>(r));
    }
    settings.range_ends.back() = all.range_ends.back();
    auto calibrator = std::make_unique<Calibrator>(settings);
    const auto hooks = [&](const Evaluation& at) {
        calibrator->begin_step(at.step, at.steps);
        DitHooks hooks;
        hooks.attention = [&](vk::Stream& own, int64_t layer, const Tensor& q, const Tensor& k,
                              const Tensor& v) {
            return calibrator->attention(own, {layer, q, k, v});
        };
        return hooks;
    };
    const int clips = static_cast<int>(request.prompts.size());
    for (int i = 0; i < clips; ++i) {
        DenoiseRequest one = request;
        one.prompt = request.prompts[static_cast<size_t>(i)];
        one.preview_every = 0;
        if (request.on_step)
            one.on_step = [&, i](int done, int) {
                request.on_step(i * request.steps + done, clips * request.steps);
            };
        const uint64_t seeds[] = {request.seed + static_cast<uint64_t>(i)};
        Denoiser(stream, model, one, latent, seeds, hooks).run();
    }
    return calibrator;
}

}  // namespace fovea
