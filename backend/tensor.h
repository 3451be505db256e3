#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/vk/stream.h"

namespace fovea {

/// Element types of tensors on the device. f16 is storage: shaders compute in fp32.
enum class DType : uint8_t { f32, f16, i32, u8 };

uint64_t bytes_of(DType dtype);
const char* name_of(DType dtype);

using Shape = std::vector<int64_t>;

std::string to_string(const Shape& shape);  ///< "(2, 3, 4)"

/// A row-major array in device memory: a value that shares its buffer. No arithmetic; see
/// backend/ops. Dense, but for views made by columns(), which ops take where they say so: binding
/// one for any other is an Error.
class Tensor {
  public:
    Tensor() = default;  ///< absent: an optional input that is not there
    Tensor(std::shared_ptr<vk::Buffer> buffer, Shape shape, DType dtype, uint64_t offset = 0);

    explicit operator bool() const { return buffer_ != nullptr; }
    const Shape& shape() const { return shape_; }
    int64_t rank() const { return static_cast<int64_t>(shape_.size()); }
    int64_t dim(int64_t axis) const;  ///< negative axes count from the last
    int64_t numel() const;
    DType dtype() const { return dtype_; }
    uint64_t bytes() const;  ///< from the first element to the last, with gaps between
    const std::shared_ptr<vk::Buffer>& buffer() const { return buffer_; }
    uint64_t offset() const { return offset_; }  ///< bytes into the buffer

    Tensor reshape(Shape shape) const;                 ///< same elements; one axis may be −1
    Tensor slice(int64_t begin, int64_t count) const;  ///< rows of the first axis, a view
    Tensor index(int64_t i) const;  ///< one row of the first axis, that axis gone

    /// Of the last axis, a view with gaps: (…, n) → (…, count). It can be sliced, and reshaped
    /// where its rows of `count` stay whole.
    Tensor columns(int64_t begin, int64_t count) const;
    /// Elements from a row of `row` to the next, all axes before it taken as one: `row` where the
    /// tensor is dense, more in a view whose rows are of that many; any other view is an Error.
    int64_t pitch(int64_t row) const;
    bool is_dense() const { return run_ == 0; }
    int64_t run() const { return is_dense() ? numel() : run_; }  ///< elements side by side

  private:
    std::shared_ptr<vk::Buffer> buffer_;
    Shape shape_;
    DType dtype_ = DType::f32;
    uint64_t offset_ = 0;
    int64_t run_ = 0, pitch_ = 0;  ///< of a view: elements side by side, and from run to run
};

/// Uninitialised memory from the device's pool.
Tensor empty(vk::Device& device, Shape shape, DType dtype);

/// Host floats to the device, converted to f32 or f16 (round to nearest even).
Tensor upload(vk::Stream& stream, std::span<const float> values, Shape shape, DType dtype);
Tensor upload(vk::Stream& stream, std::span<const int32_t> values, Shape shape);

/// Waits and returns the elements as floats (f32 or f16 tensors).
std::vector<float> to_host(vk::Stream& stream, const Tensor& tensor);

/// Accesses for Stream::dispatch. An absent tensor becomes an absent binding.
vk::Access read(const Tensor& tensor);
vk::Access read_view(const Tensor& tensor);  ///< one of columns() too
vk::Access write(const Tensor& tensor);
vk::Access read_write(const Tensor& tensor);

}  // namespace fovea
