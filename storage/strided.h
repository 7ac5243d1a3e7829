// Walking the elements of a strided tensor in row-major order.
#ifndef RELIGHT_STORAGE_STRIDED_H_
#define RELIGHT_STORAGE_STRIDED_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace relight::storage {

// Zero where a size is zero. The sizes are known not to overflow.
std::uint64_t CountElements(const std::vector<std::int64_t>& shape);

// In elements, for a tensor without gaps.
std::vector<std::int64_t> DenseStride(const std::vector<std::int64_t>& shape);

// Whether the elements lie one after the other in row-major order.
bool IsDense(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& stride);

// Where the `index`-th element in row-major order is. REQUIRES: the tensor has that many.
std::vector<std::int64_t> PositionOf(std::uint64_t index, const std::vector<std::int64_t>& shape);

// Copies the elements out in pieces. Does not own the bytes or the vectors.
class StridedReader {
 public:
  // `first` is element [0, ..., 0].
  StridedReader(const std::byte* first, const std::vector<std::int64_t>& shape,
                const std::vector<std::int64_t>& stride, std::size_t item_bytes);

  // Writes up to `max_elements` of the next elements to `out`; how many. Zero at the end.
  std::size_t Read(std::byte* out, std::size_t max_elements);

 private:
  void Advance(std::int64_t elements_of_last_dimension);

  const std::byte* const first_;
  const std::vector<std::int64_t>& shape_;
  const std::vector<std::int64_t>& stride_;
  const std::size_t item_bytes_;
  std::uint64_t left_;
  std::vector<std::int64_t> index_;
  std::int64_t offset_ = 0;  // Of index_, in elements.
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STRIDED_H_
