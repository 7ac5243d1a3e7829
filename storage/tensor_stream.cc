#include "storage/tensor_stream.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/element_values.h"
#include "storage/strided.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{256} << 10;
constexpr std::uint64_t kWindowBytes = std::uint64_t{16} << 20;

// Puts the pieces of a stream of `run_bytes` together again where they cut an element.
class WholeElements {
 public:
  WholeElements(std::uint64_t item_bytes, std::uint64_t run_bytes,
                std::function<absl::Status(absl::Span<std::byte>)> take)
      : piece_(std::clamp(run_bytes, item_bytes, kPieceBytes) / item_bytes * item_bytes),
        take_(std::move(take)) {}

  absl::Status Add(absl::Span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto now = bytes.first(std::min(bytes.size(), piece_.size() - filled_));
      std::memcpy(&piece_[filled_], now.data(), now.size());
      filled_ += now.size();
      bytes.remove_prefix(now.size());
      if (filled_ == piece_.size()) RELIGHT_RETURN_IF_ERROR(Finish());
    }
    return absl::OkStatus();
  }
  // Hands on what is left, which ends with an element.
  absl::Status Finish() {
    if (filled_ == 0) return absl::OkStatus();
    return take_(absl::MakeSpan(piece_.data(), std::exchange(filled_, std::size_t{0})));
  }

 private:
  std::vector<std::byte> piece_;
  std::size_t filled_ = 0;
  const std::function<absl::Status(absl::Span<std::byte>)> take_;
};

// One tensor on its way out.
class DenseStream {
 public:
  DenseStream(const TensorInfo& tensor, const StorageSource& source, const ByteSink& sink)
      : tensor_(tensor),
        source_(source),
        sink_(sink),
        item_(ItemSize(tensor.dtype)),
        count_(CountElements(tensor.shape)),
        begin_bytes_(static_cast<std::uint64_t>(tensor.offset_elements) * item_),
        run_bytes_((static_cast<std::uint64_t>(LastOffset(tensor.shape, tensor.stride)) + 1) *
                   item_) {}

  absl::Status Run() {
    if (IsDense(tensor_.shape, tensor_.stride)) return StreamInOrder();
    if (const absl::Span<const std::byte> whole = source_.InMemory(tensor_.storage);
        begin_bytes_ + run_bytes_ <= whole.size()) {
      return GatherFromMemory(whole.data() + begin_bytes_);
    }
    return GatherInPasses();
  }

 private:
  absl::Status StreamInOrder() {
    const bool as_it_is = !tensor_.conj && !tensor_.neg && tensor_.dtype != DType::kBool;
    if (as_it_is) return StreamTheRun(sink_);
    WholeElements pieces(item_, run_bytes_,
                         [this](absl::Span<std::byte> elements) { return Emit(elements); });
    RELIGHT_RETURN_IF_ERROR(
        StreamTheRun([&](absl::Span<const std::byte> bytes) { return pieces.Add(bytes); }));
    return pieces.Finish();
  }

  absl::Status StreamTheRun(const ByteSink& sink) const {
    return StreamRun(source_, tensor_.storage, begin_bytes_, run_bytes_, sink);
  }

  // Elements as they are in the storage go out as values.
  absl::Status Emit(absl::Span<std::byte> elements) const {
    const std::size_t count = elements.size() / item_;
    if (tensor_.conj) Conjugate(tensor_.dtype, elements.data(), count);
    if (tensor_.neg) Negate(tensor_.dtype, elements.data(), count);
    if (tensor_.dtype == DType::kBool) NormaliseBools(elements.data(), count);
    return sink_(elements);
  }

  absl::Status GatherFromMemory(const std::byte* first) const {
    const std::size_t elements = std::min<std::uint64_t>(count_, kPieceBytes / item_);
    std::vector<std::byte> piece(elements * item_);
    StridedReader reader(first, tensor_.shape, tensor_.stride, item_);
    while (const std::size_t read = reader.Read(piece.data(), elements)) {
      RELIGHT_RETURN_IF_ERROR(Emit(absl::MakeSpan(piece.data(), read * item_)));
    }
    return absl::OkStatus();
  }

  // Each pass streams the run that the tensor views and keeps what belongs into the window.
  absl::Status GatherInPasses() {
    const std::uint64_t window_elements = std::min<std::uint64_t>(count_, kWindowBytes / item_);
    window_.resize(window_elements * item_);
    dense_stride_ = DenseStride(tensor_.shape);
    for (first_ = 0; first_ < count_; first_ += window_elements) {
      end_ = std::min(first_ + window_elements, count_);
      RELIGHT_RETURN_IF_ERROR(FillWindow());
      RELIGHT_RETURN_IF_ERROR(Emit(absl::MakeSpan(window_.data(), (end_ - first_) * item_)));
    }
    return absl::OkStatus();
  }

  absl::Status FillWindow() {
    std::uint64_t offset = 0;  // In elements from the tensor's first.
    WholeElements pieces(item_, run_bytes_, [&](absl::Span<std::byte> elements) {
      Scatter(elements, offset);
      offset += elements.size() / item_;
      return absl::OkStatus();
    });
    RELIGHT_RETURN_IF_ERROR(
        StreamTheRun([&](absl::Span<const std::byte> bytes) { return pieces.Add(bytes); }));
    return pieces.Finish();
  }

  void Scatter(absl::Span<const std::byte> elements, std::uint64_t offset) {
    const auto begin = static_cast<std::int64_t>(offset);
    const auto end = static_cast<std::int64_t>(offset + elements.size() / item_);
    ForEachRunBetween(
        tensor_.shape, tensor_.stride, dense_stride_, begin, end, [&](const StridedRun& run) {
          for (std::int64_t i = 0; i < run.count; ++i) {
            const auto index = static_cast<std::uint64_t>(run.other + i * run.other_step);
            if (index < first_) continue;
            if (index >= end_) break;
            const auto from = static_cast<std::uint64_t>(run.offset + i * run.step - begin);
            std::memcpy(&window_[(index - first_) * item_], &elements[from * item_], item_);
          }
        });
  }

  const TensorInfo& tensor_;
  const StorageSource& source_;
  const ByteSink& sink_;
  const std::uint64_t item_;
  const std::uint64_t count_;
  const std::uint64_t begin_bytes_;  // Of the run of the storage that the elements lie in.
  const std::uint64_t run_bytes_;
  std::vector<std::byte> window_;
  std::vector<std::int64_t> dense_stride_;
  std::uint64_t first_ = 0;  // Of the window, in row-major order.
  std::uint64_t end_ = 0;
};

}  // namespace

absl::Status StreamRun(const StorageSource& source, std::uint32_t storage,
                       std::uint64_t begin_bytes, std::uint64_t size_bytes, const ByteSink& sink) {
  std::uint64_t at = 0;
  const std::uint64_t end = begin_bytes + size_bytes;
  RELIGHT_RETURN_IF_ERROR(source.Stream(storage, [&](absl::Span<const std::byte> bytes) {
    const std::uint64_t first = std::max(at, begin_bytes);
    const std::uint64_t last = std::min(at + bytes.size(), end);
    const std::uint64_t here = std::exchange(at, at + bytes.size());
    if (first >= last) return absl::OkStatus();
    return sink(bytes.subspan(first - here, last - first));
  }));
  const std::uint64_t promised = source.SizeBytes(storage);
  if (at == promised && end <= promised) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("storage ", storage, " gave ", at, " bytes, not ", std::max(promised, end)));
}

absl::Status StreamDense(const TensorInfo& tensor, const StorageSource& source,
                         const ByteSink& sink) {
  if (CountElements(tensor.shape) == 0) return absl::OkStatus();
  return DenseStream(tensor, source, sink).Run();
}

}  // namespace relight::storage
