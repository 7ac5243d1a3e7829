// Looks for NaN and infinity among the elements of a tensor, as they pass by.
#ifndef RELIGHT_STORAGE_FINITE_SCAN_H_
#define RELIGHT_STORAGE_FINITE_SCAN_H_

#include <cstddef>
#include <cstdint>

#include "storage/dtype.h"
#include "storage/weights.h"

namespace relight::storage {

// Whether a type has such values at all (and is one that is served).
bool MayBeNonFinite(DType dtype);

// Not thread-safe.
class FiniteScan {
 public:
  explicit FiniteScan(DType dtype) : dtype_(dtype) {}

  // The next `count` elements, in row-major order.
  void Add(const std::byte* elements, std::size_t count);

  bool AllFinite() const { return nans_ + infinities_ == 0; }
  NonFinite ForTensor(std::size_t tensor) const;

 private:
  const DType dtype_;
  // Complex numbers are two each here.
  std::uint64_t seen_ = 0;
  std::uint64_t nans_ = 0;
  std::uint64_t infinities_ = 0;
  std::uint64_t first_nan_ = 0;
  std::uint64_t first_infinity_ = 0;

  template <typename Bits>
  void Examine(const std::byte* bytes, std::size_t count, Bits exponent, Bits fraction);
};

// All of one tensor that lies in memory; `first` is its element [0, ..., 0].
FiniteScan ScanTensor(const WeightTensor& tensor, const std::byte* first);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_FINITE_SCAN_H_
