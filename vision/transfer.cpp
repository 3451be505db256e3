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
    const auto count = static_cast<size_t>(pictures.dim(0));
    std::vector<Image> images;
    const Tensor exact = convert(stream, pictures, DType::f32);
    stream.download(read(exact), [&](std::span<const std::byte> bytes) {
        const auto* pixels = reinterpret_cast<const float*>(bytes.data());
        const size_t each = bytes.size() / sizeof(float) / count;
        for (size_t i = 0; i < count; ++i) {
            Image image{.width = static_cast<int>(pictures.dim(2)),
                        .height = static_cast<int>(pictures.dim(1)),
                        .rgb = {pixels + i * each, pixels + (i + 1) * each}};
            for (float& value : image.rgb) value = std::clamp(value, 0.0f, 1.0f);
            images.push_back(std::move(image));
        }
    });
    return images;
}

}  // namespace fovea
