// Neighborhood attention over a 16 × 16 grid of tokens, through the installed library.

#include <cmath>
#include <cstdio>

#include "backend/ops/attention.h"

int main() {
    using namespace fovea;
    vk::Device device;
    vk::Stream stream(device);

    const Shape shape = {1, 4, 256, 64};  // (batch, heads, tokens, head_dim)
    std::vector<float> values(4 * 256 * 64);
    for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(0.1f * static_cast<float>(i));
    const Tensor x = upload(stream, values, shape, DType::f32);

    const Pattern pattern = neighborhood({.shape = {16, 16}}, {.window = {7, 7}});
    const Tensor o = attention(stream, x, x, x, pattern);

    const std::vector<float> host = to_host(stream, o);  // the only wait
    std::printf("%s: o%s begins with %f\n", device.info().name.c_str(),
                to_string(o.shape()).c_str(), static_cast<double>(host[0]));
}
