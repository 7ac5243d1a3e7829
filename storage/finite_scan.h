// Looks for NaN and infinity among the elements of a tensor, as they pass by.
#ifndef RELIGHT_STORAGE_FINITE_SCAN_H_
#define RELIGHT_STORAGE_FINITE_SCAN_H_

#include <cstddef>
#include <cstdint>

#include "storage/dtype.h"
#include "storage/weights.h"

namespace relight::storage {

// Not thread-safe.
class FiniteScan {
 public:
  explicit FiniteScan(DType dtype) : dtype_(dtype) {}

  // The next `count` elements, in row-major order.
  void Add(const std::byte* elements, std::size_t count);

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

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_FINITE_SCAN_H_
