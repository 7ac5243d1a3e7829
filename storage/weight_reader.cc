#include "storage/weight_reader.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "storage/element_values.h"
#include "storage/finite_scan.h"
#include "storage/strided.h"

namespace relight::storage {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{256} << 10;
constexpr std::size_t kNoJob = static_cast<std::size_t>(-1);

}  // namespace

// All that is asked of the elements of one tensor, while they are in the processor's cache.
class WeightReader::ElementsSeen {
 public:
  explicit ElementsSeen(DType dtype) : item_bytes_(ItemSize(dtype)), scan_(dtype) {}

  // The next elements in row-major order, whole ones.
  void Add(absl::Span<const std::byte> elements) {
    hasher_.Add(elements.data(), elements.size());
    scan_.Add(elements.data(), elements.size() / item_bytes_);
  }

  ElementsHash Hash() const { return hasher_.Finish(); }
  NonFinite NonFiniteOf(std::size_t tensor) const { return scan_.ForTensor(tensor); }

 private:
  const std::size_t item_bytes_;
  Hasher hasher_;
  FiniteScan scan_;
};

WeightReader::WeightReader(const Checkpoint& checkpoint, const WeightPlan& plan,
                           ScratchMemory scratch, BetweenChunks between_chunks)
    : checkpoint_(checkpoint),
      plan_(plan),
      scratch_(std::move(scratch)),
      between_chunks_(std::move(between_chunks)),
      places_(plan.pieces.size(), nullptr),
      hashes_(plan.tensors.size()),
      non_finite_(plan.tensors.size()) {
  MakeJobs();
}

void WeightReader::MakeJobs() {
  std::vector<std::size_t> job_of_storage(checkpoint_.storages().size(), kNoJob);
  std::vector<std::size_t> job_of_piece;
  for (std::size_t i = 0; i < plan_.pieces.size(); ++i) {
    const WeightPiece& piece = plan_.pieces[i];
    std::size_t& job = job_of_storage[piece.storage];
    if (job == kNoJob) {
      job = jobs_.size();
      jobs_.emplace_back().storage = piece.storage;
    }
    job_of_piece.push_back(job);
    if (piece.verbatim) {
      jobs_[job].whole_piece = i;
    } else {
      jobs_[job].dense_pieces.push_back(i);
    }
  }
  for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
    jobs_[job_of_piece[plan_.tensors[i].piece]].tensors.push_back(i);
  }
  // The longest first, so that no thread is left alone with it at the end.
  std::stable_sort(jobs_.begin(), jobs_.end(), [this](const Job& a, const Job& b) {
    return checkpoint_.storages()[a.storage].size_bytes >
           checkpoint_.storages()[b.storage].size_bytes;
  });
}

const std::byte* WeightReader::AddressOf(const WeightTensor& tensor) const {
  return places_[tensor.piece] + (tensor.offset_bytes - plan_.pieces[tensor.piece].offset_bytes);
}

absl::Status WeightReader::Passed(std::uint64_t bytes) const {
  return between_chunks_ ? between_chunks_(bytes) : absl::OkStatus();
}

absl::Status WeightReader::Run(const Job& job) {
  if (!job.whole_piece.has_value()) return RunDense(job);
  const WeightPiece& piece = plan_.pieces[*job.whole_piece];
  std::byte* const whole = places_[*job.whole_piece];
  const std::optional<std::size_t> covering = CoveringTensor(job);
  const bool bools = HoldsBools(job);
  std::optional<ElementsSeen> seen;
  if (covering.has_value()) seen.emplace(plan_.tensors[*covering].dtype);
  const auto on_chunk = [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
    if (bools) NormaliseBools(whole + offset, chunk.size());
    if (seen.has_value()) seen->Add(chunk);
    return Passed(chunk.size());
  };
  RELIGHT_RETURN_IF_ERROR(checkpoint_.ReadStorage(
      job.storage, {whole, static_cast<std::size_t>(piece.size_bytes)}, on_chunk));
  for (const std::size_t i : job.dense_pieces) Gather(plan_.pieces[i], whole, 0, places_[i]);
  for (const std::size_t i : job.tensors) {
    if (seen.has_value() && SameView(i, *covering)) {
      Keep(*seen, i);
    } else {
      LookAt(i);
    }
  }
  return absl::OkStatus();
}

// Without a place for the whole storage: keeps the range that its tensors lie in while the rest
// only passes by for its CRC-32.
absl::Status WeightReader::RunDense(const Job& job) {
  std::uint64_t begin = UINT64_MAX;
  std::uint64_t end = 0;
  for (const std::size_t i : job.dense_pieces) ExtendRange(plan_.pieces[i], begin, end);
  if (begin < end) {
    // The size comes from the file, but not beyond the file's own.
    RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> range,
                             scratch_(static_cast<std::size_t>(end - begin)));
    const auto on_chunk = [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
      const std::uint64_t from = std::max(begin, offset);
      const std::uint64_t to = std::min<std::uint64_t>(end, offset + chunk.size());
      if (from < to) {
        std::memcpy(range.get() + (from - begin), chunk.data() + (from - offset), to - from);
      }
      return Passed(chunk.size());
    };
    std::vector<std::byte> buffer(kBufferBytes);
    RELIGHT_RETURN_IF_ERROR(
        checkpoint_.StreamStorage(job.storage, absl::MakeSpan(buffer), on_chunk));
    for (const std::size_t i : job.dense_pieces) {
      Gather(plan_.pieces[i], range.get(), begin, places_[i]);
    }
  }
  for (const std::size_t i : job.tensors) LookAt(i);
  return absl::OkStatus();
}

const WeightTensor* WeightReader::OnlyTensor(const Job& job) const {
  const std::optional<std::size_t> covering = CoveringTensor(job);
  if (!covering.has_value() || !job.dense_pieces.empty()) return nullptr;
  for (const std::size_t i : job.tensors) {
    if (!SameView(i, *covering)) return nullptr;
  }
  return &plan_.tensors[*covering];
}

absl::Status WeightReader::Stream(const Job& job) {
  const WeightTensor& tensor = *OnlyTensor(job);
  ElementsSeen seen(tensor.dtype);
  std::vector<std::byte> buffer(kBufferBytes);
  const auto on_chunk = [&](std::uint64_t, absl::Span<const std::byte> chunk) {
    if (tensor.dtype == DType::kBool) NormaliseBools(buffer.data(), chunk.size());
    seen.Add(chunk);
    return Passed(chunk.size());
  };
  RELIGHT_RETURN_IF_ERROR(checkpoint_.StreamStorage(job.storage, absl::MakeSpan(buffer), on_chunk));
  for (const std::size_t i : job.tensors) Keep(seen, i);
  return absl::OkStatus();
}

// A tensor whose elements are in memory, but did not pass by in order.
void WeightReader::LookAt(std::size_t tensor) {
  const WeightTensor& in_plan = plan_.tensors[tensor];
  ElementsSeen seen(in_plan.dtype);
  ForEachStretch(AddressOf(in_plan), in_plan.shape, in_plan.stride, ItemSize(in_plan.dtype),
                 [&seen](absl::Span<const std::byte> elements) { seen.Add(elements); });
  Keep(seen, tensor);
}

void WeightReader::Keep(const ElementsSeen& seen, std::size_t tensor) {
  hashes_[tensor] = seen.Hash();
  non_finite_[tensor] = seen.NonFiniteOf(tensor);
}

void WeightReader::ExtendRange(const WeightPiece& piece, std::uint64_t& begin,
                               std::uint64_t& end) const {
  const TensorInfo& info = checkpoint_.tree().tensor(piece.node);
  if (CountElements(info.shape) == 0) return;
  std::int64_t last = info.offset_elements;
  for (std::size_t i = 0; i < info.shape.size(); ++i) last += (info.shape[i] - 1) * info.stride[i];
  const std::uint64_t item = ItemSize(info.dtype);
  begin = std::min(begin, static_cast<std::uint64_t>(info.offset_elements) * item);
  end = std::max(end, (static_cast<std::uint64_t>(last) + 1) * item);
}

// Fills a dense piece from its storage, of which `source` has the bytes from `source_begin` on.
void WeightReader::Gather(const WeightPiece& piece, const std::byte* source,
                          std::uint64_t source_begin, std::byte* out) const {
  const TensorInfo& info = checkpoint_.tree().tensor(piece.node);
  const std::uint64_t count = CountElements(info.shape);
  if (count == 0) return;
  const std::size_t item = ItemSize(info.dtype);
  const std::byte* const first =
      source + (static_cast<std::uint64_t>(info.offset_elements) * item - source_begin);
  StridedReader(first, info.shape, info.stride, item).Read(out, count);
  if (info.conj) Conjugate(info.dtype, out, count);
  if (info.neg) Negate(info.dtype, out, count);
  if (info.dtype == DType::kBool) NormaliseBools(out, count);
}

bool WeightReader::HoldsBools(const Job& job) const {
  for (const std::size_t i : job.tensors) {
    if (plan_.tensors[i].piece == job.whole_piece) return plan_.tensors[i].dtype == DType::kBool;
  }
  return false;
}

// A tensor whose elements are just the bytes of the whole piece, in order.
std::optional<std::size_t> WeightReader::CoveringTensor(const Job& job) const {
  if (!job.whole_piece.has_value()) return std::nullopt;
  const WeightPiece& piece = plan_.pieces[*job.whole_piece];
  for (const std::size_t i : job.tensors) {
    const WeightTensor& tensor = plan_.tensors[i];
    if (tensor.piece == job.whole_piece && tensor.offset_bytes == piece.offset_bytes &&
        CountElements(tensor.shape) * ItemSize(tensor.dtype) == piece.size_bytes &&
        IsDense(tensor.shape, tensor.stride)) {
      return i;
    }
  }
  return std::nullopt;
}

bool WeightReader::SameView(std::size_t a, std::size_t b) const {
  const WeightTensor& x = plan_.tensors[a];
  const WeightTensor& y = plan_.tensors[b];
  return x.piece == y.piece && x.offset_bytes == y.offset_bytes && x.shape == y.shape &&
         x.stride == y.stride && x.dtype == y.dtype;
}

ExaminedWeights WeightReader::Result() const {
  ExaminedWeights result;
  result.digest = CombineHashes(plan_, hashes_);
  result.crc_absent = std::any_of(jobs_.begin(), jobs_.end(), [this](const Job& job) {
    const StorageInfo& storage = checkpoint_.storages()[job.storage];
    return storage.size_bytes > 0 && !storage.crc32.has_value();
  });
  std::copy_if(non_finite_.begin(), non_finite_.end(), std::back_inserter(result.non_finite),
               [](const NonFinite& one) { return one.nans + one.infinities > 0; });
  return result;
}

}  // namespace relight::storage
