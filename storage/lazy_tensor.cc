#include "storage/lazy_tensor.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/strided.h"

namespace relight::storage {
namespace {

// The bytes [begin, end) of a storage.
absl::StatusOr<std::vector<std::byte>> ReadRun(const StorageSource& source, std::uint32_t storage,
                                               std::uint64_t begin, std::uint64_t end) {
  std::vector<std::byte> run(end - begin);
  std::uint64_t at = 0;
  RELIGHT_RETURN_IF_ERROR(source.Stream(storage, [&](absl::Span<const std::byte> bytes) {
    const std::uint64_t first = std::max(at, begin);
    const std::uint64_t last = std::min(at + bytes.size(), end);
    if (first < last) std::memcpy(&run[first - begin], &bytes[first - at], last - first);
    at += bytes.size();
    return absl::OkStatus();
  }));
  if (at < end) {
    return absl::DataLossError(absl::StrCat("storage ", storage, " gave ", at, " bytes of ", end));
  }
  return run;
}

// Flips the signs that the tensor's flags ask for; the sign is the top bit of each little-endian
// component.
void FlipSigns(const TensorInfo& tensor, std::vector<std::byte>& dense) {
  const std::size_t item = ItemSize(tensor.dtype);
  const bool complex = IsComplex(tensor.dtype);
  const std::size_t component = complex ? item / 2 : item;
  const bool flip_real = tensor.neg;
  const bool flip_imaginary = complex && tensor.neg != tensor.conj;
  for (std::size_t at = 0; at < dense.size(); at += component) {
    const bool imaginary = complex && at % item != 0;
    if (imaginary ? flip_imaginary : flip_real) dense[at + component - 1] ^= std::byte{0x80};
  }
}

}  // namespace

absl::StatusOr<std::vector<std::byte>> ResolveTensor(const TensorInfo& tensor,
                                                     const StorageSource& source) {
  const std::uint64_t count = CountElements(tensor.shape);
  if (count == 0) return std::vector<std::byte>();
  const std::uint64_t item = ItemSize(tensor.dtype);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    last += static_cast<std::uint64_t>(tensor.shape[i] - 1) *
            static_cast<std::uint64_t>(tensor.stride[i]);
  }
  const std::uint64_t begin = static_cast<std::uint64_t>(tensor.offset_elements) * item;
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<std::byte> run,
                           ReadRun(source, tensor.storage, begin, begin + (last + 1) * item));
  std::vector<std::byte> dense(count * item);
  StridedReader reader(run.data(), tensor.shape, tensor.stride, item);
  std::uint64_t at = 0;
  while (const std::size_t read = reader.Read(&dense[at * item], count - at)) {
    at += read;
    if (at == count) break;
  }
  FlipSigns(tensor, dense);
  return dense;
}

}  // namespace relight::storage
