// Walking the elements of a strided tensor in row-major order.
#ifndef RELIGHT_STORAGE_STRIDED_H_
#define RELIGHT_STORAGE_STRIDED_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"

namespace relight::storage {

// Zero where a size is zero. The sizes are known not to overflow.
std::uint64_t CountElements(const std::vector<std::int64_t>& shape);

// In elements, for a tensor without gaps.
std::vector<std::int64_t> DenseStride(const std::vector<std::int64_t>& shape);

// Whether the elements lie one after the other in row-major order.
bool IsDense(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& stride);

// Where the `index`-th element in row-major order is. REQUIRES: the tensor has that many.
std::vector<std::int64_t> PositionOf(std::uint64_t index, const std::vector<std::int64_t>& shape);

// The offset of the last element from the first, in elements; 0 for a tensor without elements.
std::int64_t LastOffset(const std::vector<std::int64_t>& shape,
                        const std::vector<std::int64_t>& stride);

// Some elements of a shape that lies in two places with strides of their own: the i-th of `count`
// has the offset `offset` + i * `step` from element [0, ..., 0] in the first place, and `other` +
// i * `other_step` in the second. All in elements.
struct StridedRun {
  std::int64_t offset = 0;
  std::int64_t step = 0;
  std::int64_t other = 0;
  std::int64_t other_step = 0;
  std::int64_t count = 0;
};

// Calls `visit` with runs that hold every element whose offset by `stride` lies in [begin, end)
// exactly once, and no other element; in no particular order. What that costs depends on the
// elements there rather than on the whole tensor, so a storage can be walked through in chunks.
void ForEachRunBetween(const std::vector<std::int64_t>& shape,
                       const std::vector<std::int64_t>& stride,
                       const std::vector<std::int64_t>& other_stride, std::int64_t begin,
                       std::int64_t end, const std::function<void(const StridedRun&)>& visit);

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

// Calls `visit` with all the elements in row-major order, some at a time. `first` is element
// [0, ..., 0]; it may be null where there is none.
void ForEachStretch(const std::byte* first, const std::vector<std::int64_t>& shape,
                    const std::vector<std::int64_t>& stride, std::size_t item_bytes,
                    const std::function<void(absl::Span<const std::byte>)>& visit);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STRIDED_H_
