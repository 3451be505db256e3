#include "vision/transfer.h"

#include <algorithm>

#include "backend/error.h"
#include "backend/ops/elementwise.h"

namespace fovea {

Tensor to_device(vk::Stream& stream, const std::vector<Image>& pictures, DType dtype) {
    require(!pictures.empty(), "[picture] none given");
    const int width = pictures[0].width, height = pictures[0].height;
    std::vector<float> pixels;
    for (const auto& picture : pictures) {
        require(picture.width == width && picture.height == height,
                "[picture] {}×{} and {}×{} in one batch", width, height, picture.width,
                picture.height);
        pixels.insert(pixels.end(), picture.rgb.begin(), picture.rgb.end());
    }
    return upload(stream, pixels, {static_cast<int64_t>(pictures.size()), height, width, 3}, dtype);
}

std::vector<Image> to_images(vk::Stream& stream, const Tensor& pictures) {
    require(pictures.rank() == 4 && pictures.dim(3) == 3,
            "[picture] (batch, height, width, 3) expected, found {}", to_string(pictures.shape()));
    const auto pixels = to_host(stream, convert(stream, pictures, DType::f32));
    const auto count = static_cast<size_t>(pictures.dim(0)), each = pixels.size() / count;
    std::vector<Image> images;
    for (size_t i = 0; i < count; ++i) {
        Image image{.width = static_cast<int>(pictures.dim(2)),
                    .height = static_cast<int>(pictures.dim(1)),
                    .rgb = std::vector<float>(each)};
        std::transform(pixels.begin() + static_cast<std::ptrdiff_t>(i * each),
                       pixels.begin() + static_cast<std::ptrdiff_t>((i + 1) * each),
                       image.rgb.begin(),
                       [](float value) { return std::clamp(value, 0.0f, 1.0f); });
        images.push_back(std::move(image));
    }
    return images;
}

}  // namespace fovea
