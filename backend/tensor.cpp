#include "backend/tensor.h"

#include <fmt/ranges.h>

#include "backend/error.h"
#include "backend/half.h"

namespace fovea {
namespace {

int64_t product(const Shape& shape) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    return count;
}

vk::Access access(const Tensor& tensor, vk::Access::Mode mode) {
    if (!tensor) return {};
    require(tensor.is_dense(),
            "[tensor] a dense tensor expected, found columns of a wider one, {}: compact() of "
            "permute.h copies them",
            to_string(tensor.shape()));
    return {tensor.buffer(), tensor.offset(), tensor.bytes(), mode};
}

}  // namespace

uint64_t bytes_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
        case DType::i32:
            return 4;
        case DType::f16:
            return 2;
        case DType::u8:
            return 1;
    }
    return 0;
}

const char* name_of(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return "f32";
        case DType::f16:
            return "f16";
        case DType::i32:
            return "i32";
        case DType::u8:
            return "u8";
    }
    return "?";
}

std::string to_string(const Shape& shape) {
    return fmt::format("({})", fmt::join(shape, ", "));
}

Tensor::Tensor(std::shared_ptr<vk::Buffer> buffer, Shape shape, DType dtype, uint64_t offset)
    : buffer_(std::move(buffer)), shape_(std::move(shape)), dtype_(dtype), offset_(offset) {
    for (const int64_t extent : shape_)
        require(extent > 0, "[tensor] every axis must be at least 1, found {}", to_string(shape_));
    require(offset_ + bytes() <= buffer_->bytes(), "[tensor] {} of {} at byte {} in a buffer of {}",
            to_string(shape_), name_of(dtype_), offset_, buffer_->bytes());
}

int64_t Tensor::dim(int64_t axis) const {
    const int64_t i = axis < 0 ? axis + rank() : axis;
    require(i >= 0 && i < rank(), "[tensor] axis {} of shape {}", axis, to_string(shape_));
    return shape_[static_cast<size_t>(i)];
}

int64_t Tensor::numel() const {
    return product(shape_);
}

uint64_t Tensor::bytes() const {
    const int64_t count = is_dense() ? numel() : (numel() / run_ - 1) * pitch_ + run_;
    return static_cast<uint64_t>(count) * bytes_of(dtype_);
}

int64_t Tensor::pitch(int64_t row) const {
    require(is_dense() || run_ == row, "[tensor] rows of {} expected, found a view with rows of {}",
            row, run_);
    return is_dense() ? row : pitch_;
}

Tensor Tensor::columns(int64_t begin, int64_t count) const {
    require(rank() > 0 && begin >= 0 && count > 0 && begin + count <= shape_.back(),
            "[columns] {} to {} of shape {}", begin, begin + count, to_string(shape_));
    Tensor view = *this;
    view.pitch_ = pitch(shape_.back());
    view.run_ = count;
    view.shape_.back() = count;
    view.offset_ += static_cast<uint64_t>(begin) * bytes_of(dtype_);
    return view;
}

Tensor Tensor::reshape(Shape shape) const {
    int64_t known = 1;
    int64_t* open = nullptr;
    for (int64_t& extent : shape) {
        if (extent == -1)
            open = &extent;
        else
            known *= extent;
    }
    if (open && known > 0) *open = numel() / known;
    require(product(shape) == numel(), "[reshape] {} has {} elements, {} has {}", to_string(shape_),
            numel(), to_string(shape), product(shape));
    int64_t row = 1;
    for (size_t k = shape.size(); row < run_ && k-- > 0;) row *= shape[k];
    require(is_dense() || row == run_, "[reshape] {} has rows of {} with gaps between, {} has not",
            to_string(shape_), run_, to_string(shape));
    Tensor result = *this;
    result.shape_ = std::move(shape);
    return result;
}

Tensor Tensor::slice(int64_t begin, int64_t count) const {
    require(rank() > 0 && begin >= 0 && count > 0 && begin + count <= shape_[0],
            "[slice] rows {} to {} of shape {}", begin, begin + count, to_string(shape_));
    const int64_t row = numel() / shape_[0];
    require(is_dense() || row % run_ == 0, "[slice] of {}, whose gaps lie between rows of {}",
            to_string(shape_), run_);
    Tensor result = *this;
    result.shape_[0] = count;
    result.offset_ +=
        static_cast<uint64_t>(begin * (is_dense() ? row : row / run_ * pitch_)) * bytes_of(dtype_);
    return result;
}

Tensor Tensor::index(int64_t i) const {
    const Tensor row = slice(i, 1);
    return row.reshape(Shape(row.shape().begin() + 1, row.shape().end()));
}

Tensor empty(vk::Device& device, Shape shape, DType dtype) {
    const int64_t count = product(shape);
    require(count > 0, "[tensor] every axis must be at least 1, found {}", to_string(shape));
    auto buffer = device.allocate(static_cast<uint64_t>(count) * bytes_of(dtype),
                                  vk::Memory::device, "a tensor of shape " + to_string(shape));
    return {std::move(buffer), std::move(shape), dtype};
}

Tensor upload(vk::Stream& stream, std::span<const float> values, Shape shape, DType dtype) {
    Tensor tensor = empty(stream.device(), std::move(shape), dtype);
    require(static_cast<int64_t>(values.size()) == tensor.numel(),
            "[upload] {} values for shape {}", values.size(), to_string(tensor.shape()));
    if (dtype == DType::f32) {
        stream.upload(write(tensor), std::as_bytes(values));
    } else {
        require(dtype == DType::f16, "[upload] floats become f32 or f16, not {}", name_of(dtype));
        std::vector<uint16_t> halves(values.size());
        for (size_t i = 0; i < values.size(); ++i) halves[i] = float_to_half(values[i]);
        stream.upload(write(tensor), std::as_bytes(std::span(halves)));
    }
    return tensor;
}

Tensor upload(vk::Stream& stream, std::span<const int32_t> values, Shape shape) {
    Tensor tensor = empty(stream.device(), std::move(shape), DType::i32);
    require(static_cast<int64_t>(values.size()) == tensor.numel(),
            "[upload] {} values for shape {}", values.size(), to_string(tensor.shape()));
    stream.upload(write(tensor), std::as_bytes(values));
    return tensor;
}

std::vector<float> to_host(vk::Stream& stream, const Tensor& tensor) {
    require(static_cast<bool>(tensor), "[to_host] absent tensor");
    std::vector<float> values(static_cast<size_t>(tensor.numel()));
    if (tensor.dtype() == DType::f32) {
        stream.download(read(tensor), std::as_writable_bytes(std::span(values)));
    } else {
        require(tensor.dtype() == DType::f16, "[to_host] f32 or f16 expected, found {}",
                name_of(tensor.dtype()));
        std::vector<uint16_t> halves(values.size());
        stream.download(read(tensor), std::as_writable_bytes(std::span(halves)));
        for (size_t i = 0; i < values.size(); ++i) values[i] = half_to_float(halves[i]);
    }
    return values;
}

vk::Access read_view(const Tensor& tensor) {
    if (!tensor) return {};
    return {tensor.buffer(), tensor.offset(), tensor.bytes(), vk::Access::Mode::read};
}

vk::Access read(const Tensor& tensor) {
    return access(tensor, vk::Access::Mode::read);
}
vk::Access write(const Tensor& tensor) {
    return access(tensor, vk::Access::Mode::write);
}
vk::Access read_write(const Tensor& tensor) {
    return access(tensor, vk::Access::Mode::read_write);
}

}  // namespace fovea
