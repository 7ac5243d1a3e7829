#include "storage/strided.h"

#include <algorithm>
#include <cstring>

namespace relight::storage {
namespace {

template <std::size_t kItemBytes>
void CopyStrided(const std::byte* from, std::int64_t step_bytes, std::byte* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    std::memcpy(to + i * kItemBytes, from + static_cast<std::int64_t>(i) * step_bytes, kItemBytes);
  }
}

void CopyRun(const std::byte* from, std::int64_t stride, std::size_t item_bytes, std::byte* to,
             std::size_t count) {
  if (stride == 1) {
    std::memcpy(to, from, count * item_bytes);
    return;
  }
  const std::int64_t step = stride * static_cast<std::int64_t>(item_bytes);
  switch (item_bytes) {
    case 1:
      return CopyStrided<1>(from, step, to, count);
    case 2:
      return CopyStrided<2>(from, step, to, count);
    case 4:
      return CopyStrided<4>(from, step, to, count);
    case 8:
      return CopyStrided<8>(from, step, to, count);
    default:
      return CopyStrided<16>(from, step, to, count);
  }
}

// Finds the runs of ForEachRunBetween: dimensions are gone through from the largest stride to the
// smallest, each only as far as something in the range can be reached.
class RunFinder {
 public:
  RunFinder(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& stride,
            const std::vector<std::int64_t>& other_stride, std::int64_t begin, std::int64_t end,
            const std::function<void(const StridedRun&)>& visit)
      : begin_(begin), end_(end), visit_(visit) {
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] != 1) dimensions_.push_back({shape[i], stride[i], other_stride[i], 0});
    }
    if (dimensions_.empty()) dimensions_.push_back({1, 0, 0, 0});
    std::stable_sort(dimensions_.begin(), dimensions_.end(),
                     [](const Dimension& a, const Dimension& b) { return a.stride > b.stride; });
    std::int64_t reach = 0;
    for (std::size_t i = dimensions_.size(); i-- > 0;) {
      dimensions_[i].reach_below = reach;
      reach += (dimensions_[i].size - 1) * dimensions_[i].stride;
    }
  }

  // One level per dimension, of which no tensor has over 64.
  void Find(std::size_t level, std::int64_t offset, std::int64_t other) const {
    const Dimension& dimension = dimensions_[level];
    std::int64_t first = 0;
    std::int64_t last = dimension.size - 1;
    const std::int64_t from = begin_ - dimension.reach_below - offset;
    const std::int64_t to = end_ - 1 - offset;
    if (to < 0) return;
    if (dimension.stride == 0) {
      if (from > 0) return;
    } else {
      if (from > 0) first = (from + dimension.stride - 1) / dimension.stride;
      last = std::min(last, to / dimension.stride);
    }
    if (level + 1 == dimensions_.size()) {
      if (first > last) return;
      visit_({offset + first * dimension.stride, dimension.stride,
              other + first * dimension.other_stride, dimension.other_stride, last - first + 1});
      return;
    }
    for (std::int64_t i = first; i <= last; ++i) {
      Find(level + 1, offset + i * dimension.stride, other + i * dimension.other_stride);
    }
  }

 private:
  struct Dimension {
    std::int64_t size = 0;
    std::int64_t stride = 0;
    std::int64_t other_stride = 0;
    std::int64_t reach_below = 0;  // How far the dimensions after it lead.
  };

  const std::int64_t begin_;
  const std::int64_t end_;
  const std::function<void(const StridedRun&)>& visit_;
  std::vector<Dimension> dimensions_;
};

}  // namespace

std::uint64_t CountElements(const std::vector<std::int64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::uint64_t count = 1;
  for (const std::int64_t size : shape) count *= static_cast<std::uint64_t>(size);
  return count;
}

std::vector<std::int64_t> DenseStride(const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> stride(shape.size());
  const bool empty = CountElements(shape) == 0;
  std::int64_t step = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    stride[i] = step;
    // Nothing bounds the other sizes of an empty tensor.
    if (!empty) step *= shape[i];
  }
  return stride;
}

bool IsDense(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& stride) {
  if (CountElements(shape) == 0) return true;
  std::int64_t expected = 1;
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && stride[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

std::vector<std::int64_t> PositionOf(std::uint64_t index, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> position(shape.size());
  for (std::size_t i = shape.size(); i-- > 0;) {
    const auto size = static_cast<std::uint64_t>(shape[i]);
    position[i] = static_cast<std::int64_t>(index % size);
    index /= size;
  }
  return position;
}

std::int64_t LastOffset(const std::vector<std::int64_t>& shape,
                        const std::vector<std::int64_t>& stride) {
  if (CountElements(shape) == 0) return 0;
  std::int64_t last = 0;
  for (std::size_t i = 0; i < shape.size(); ++i) last += (shape[i] - 1) * stride[i];
  return last;
}

void ForEachRunBetween(const std::vector<std::int64_t>& shape,
                       const std::vector<std::int64_t>& stride,
                       const std::vector<std::int64_t>& other_stride, std::int64_t begin,
                       std::int64_t end, const std::function<void(const StridedRun&)>& visit) {
  if (CountElements(shape) == 0) return;
  RunFinder(shape, stride, other_stride, begin, end, visit).Find(0, 0, 0);
}

StridedReader::StridedReader(const std::byte* first, const std::vector<std::int64_t>& shape,
                             const std::vector<std::int64_t>& stride, std::size_t item_bytes)
    : first_(first),
      shape_(shape),
      stride_(stride),
      item_bytes_(item_bytes),
      left_(CountElements(shape)),
      index_(shape.size(), 0) {}

std::size_t StridedReader::Read(std::byte* out, std::size_t max_elements) {
  std::size_t done = 0;
  while (left_ > 0 && done < max_elements) {
    const std::int64_t row_left = shape_.empty() ? 1 : shape_.back() - index_.back();
    const std::int64_t stride = shape_.empty() ? 1 : stride_.back();
    const std::size_t count = std::min(max_elements - done, static_cast<std::size_t>(row_left));
    CopyRun(first_ + offset_ * static_cast<std::int64_t>(item_bytes_), stride, item_bytes_,
            out + done * item_bytes_, count);
    done += count;
    left_ -= count;
    if (!shape_.empty()) Advance(static_cast<std::int64_t>(count));
  }
  return done;
}

void StridedReader::Advance(std::int64_t elements_of_last_dimension) {
  std::size_t dimension = shape_.size() - 1;
  index_[dimension] += elements_of_last_dimension;
  offset_ += elements_of_last_dimension * stride_[dimension];
  while (index_[dimension] == shape_[dimension] && dimension > 0) {
    offset_ -= index_[dimension] * stride_[dimension];
    index_[dimension] = 0;
    --dimension;
    ++index_[dimension];
    offset_ += stride_[dimension];
  }
}

void ForEachStretch(const std::byte* first, const std::vector<std::int64_t>& shape,
                    const std::vector<std::int64_t>& stride, std::size_t item_bytes,
                    const std::function<void(absl::Span<const std::byte>)>& visit) {
  constexpr std::size_t kStretchBytes = std::size_t{64} << 10;
  const std::size_t elements = kStretchBytes / item_bytes;
  if (IsDense(shape, stride)) {
    const std::uint64_t count = CountElements(shape);
    for (std::uint64_t at = 0; at < count; at += elements) {
      visit({first + at * item_bytes, std::min<std::uint64_t>(elements, count - at) * item_bytes});
    }
    return;
  }
  std::vector<std::byte> buffer(elements * item_bytes);
  StridedReader reader(first, shape, stride, item_bytes);
  while (const std::size_t got = reader.Read(buffer.data(), elements)) {
    visit({buffer.data(), got * item_bytes});
  }
}

}  // namespace relight::storage
