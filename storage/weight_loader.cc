// LoadWeights: reads the pieces of a plan into the block, checking CRCs and digesting the tensors.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/strided.h"
#include "storage/weights.h"
#include "xxhash.h"

namespace relight::storage {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
constexpr std::size_t kNoPiece = static_cast<std::size_t>(-1);

using Hash = std::array<std::uint8_t, 16>;

// Streaming XXH3-128.
class Hasher {
 public:
  Hasher() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }
  void Add(const void* bytes, std::size_t size) { XXH3_128bits_update(state_.get(), bytes, size); }
  void AddNumber(std::uint64_t value) { Add(&value, sizeof value); }
  void AddText(std::string_view text) {
    AddNumber(text.size());
    Add(text.data(), text.size());
  }
  Hash Finish() const {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_.get()));
    Hash hash;
    std::memcpy(hash.data(), canonical.digest, hash.size());
    return hash;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

void NormaliseBools(std::byte* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = bytes[i] == std::byte{0} ? std::byte{0} : std::byte{1};
  }
}

template <typename T>
void FlipSigns(std::byte* bytes, std::size_t count, std::size_t first, std::size_t step) {
  constexpr T kSign = T{1} << (8 * sizeof(T) - 1);
  for (std::size_t i = first; i < count; i += step) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    value = static_cast<T>(value ^ kSign);
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
}

template <typename T>
void NegateIntegers(std::byte* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
    value = static_cast<T>(T{0} - value);
    std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
  }
}

void Conjugate(DType dtype, std::byte* bytes, std::size_t count) {
  if (dtype == DType::kComplex64) FlipSigns<std::uint32_t>(bytes, 2 * count, 1, 2);
  if (dtype == DType::kComplex128) FlipSigns<std::uint64_t>(bytes, 2 * count, 1, 2);
}

void Negate(DType dtype, std::byte* bytes, std::size_t count) {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
      return FlipSigns<std::uint16_t>(bytes, count, 0, 1);
    case DType::kFloat32:
      return FlipSigns<std::uint32_t>(bytes, count, 0, 1);
    case DType::kFloat64:
      return FlipSigns<std::uint64_t>(bytes, count, 0, 1);
    case DType::kComplex64:
      return FlipSigns<std::uint32_t>(bytes, 2 * count, 0, 1);
    case DType::kComplex128:
      return FlipSigns<std::uint64_t>(bytes, 2 * count, 0, 1);
    case DType::kUInt8:
    case DType::kInt8:
      return NegateIntegers<std::uint8_t>(bytes, count);
    case DType::kInt16:
      return NegateIntegers<std::uint16_t>(bytes, count);
    case DType::kInt32:
      return NegateIntegers<std::uint32_t>(bytes, count);
    case DType::kInt64:
      return NegateIntegers<std::uint64_t>(bytes, count);
    default:
      return;
  }
}

// Everything that is filled from one storage, in one pass over it.
struct Job {
  std::uint32_t storage = 0;
  std::size_t whole_piece = kNoPiece;
  std::vector<std::size_t> dense_pieces;
  std::vector<std::size_t> tensors;
};

class Loader {
 public:
  Loader(const Checkpoint& checkpoint, const WeightPlan& plan, absl::Span<std::byte> block,
         const LoadHooks& hooks)
      : checkpoint_(checkpoint), plan_(plan), block_(block), hooks_(hooks) {}

  absl::StatusOr<LoadedWeights> Load() {
    if (block_.size() != plan_.total_bytes ||
        reinterpret_cast<std::uintptr_t>(block_.data()) % kWeightAlignment != 0) {
      return absl::InternalError("the block for the weights has a wrong size or alignment");
    }
    MakeJobs();
    hashes_.resize(plan_.tensors.size());
    std::vector<absl::Status> statuses(jobs_.size());
    hooks_.parallel_for(jobs_.size(), [&](std::size_t i) { statuses[i] = Run(jobs_[i]); });
    // The file's state first: what reading it made of a half-written file matters less.
    RELIGHT_RETURN_IF_ERROR(checkpoint_.CheckUnchanged());
    for (const absl::Status& status : statuses) RELIGHT_RETURN_IF_ERROR(status);
    LoadedWeights loaded;
    loaded.digest = Digest();
    for (const Job& job : jobs_) {
      const StorageInfo& storage = checkpoint_.storages()[job.storage];
      loaded.crc_absent =
          loaded.crc_absent || (storage.size_bytes > 0 && !storage.crc32.has_value());
    }
    return loaded;
  }

 private:
  void MakeJobs() {
    std::vector<std::size_t> job_of_storage(checkpoint_.storages().size(), kNoPiece);
    std::vector<std::size_t> job_of_piece;
    for (std::size_t i = 0; i < plan_.pieces.size(); ++i) {
      const WeightPiece& piece = plan_.pieces[i];
      std::size_t& job = job_of_storage[piece.storage];
      if (job == kNoPiece) {
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

  absl::Status Run(const Job& job) {
    if (job.whole_piece == kNoPiece) return RunDense(job);
    const WeightPiece& piece = plan_.pieces[job.whole_piece];
    std::byte* const whole = block_.data() + piece.offset_bytes;
    const std::size_t covering = CoveringTensor(job, piece);
    const bool bools = HoldsBools(job);
    Hasher hasher;
    const auto on_chunk = [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
      if (bools) NormaliseBools(whole + offset, chunk.size());
      if (covering != kNoPiece) hasher.Add(chunk.data(), chunk.size());
      return BetweenChunks();
    };
    RELIGHT_RETURN_IF_ERROR(checkpoint_.ReadStorage(
        job.storage, {whole, static_cast<std::size_t>(piece.size_bytes)}, on_chunk));
    for (const std::size_t i : job.dense_pieces) Gather(plan_.pieces[i], whole, 0);
    for (const std::size_t i : job.tensors) {
      const bool covers = covering != kNoPiece && SameView(i, covering);
      hashes_[i] = covers ? hasher.Finish() : HashOf(plan_.tensors[i]);
    }
    return absl::OkStatus();
  }

  // Without a place for the whole storage: keeps the range that its tensors lie in while the rest
  // only passes by for its CRC-32.
  absl::Status RunDense(const Job& job) {
    std::uint64_t begin = UINT64_MAX;
    std::uint64_t end = 0;
    for (const std::size_t i : job.dense_pieces) ExtendRange(plan_.pieces[i], begin, end);
    if (begin < end) {
      // The size comes from the file, but not beyond the file's own.
      const std::unique_ptr<std::byte[]> range(new (std::nothrow) std::byte[end - begin]);
      const std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[kBufferBytes]);
      if (range == nullptr || buffer == nullptr) {
        return absl::ResourceExhaustedError(
            absl::StrCat("no memory for ", end - begin, " bytes of a storage"));
      }
      const auto on_chunk = [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
        const std::uint64_t from = std::max(begin, offset);
        const std::uint64_t to = std::min<std::uint64_t>(end, offset + chunk.size());
        if (from < to) {
          std::memcpy(range.get() + (from - begin), chunk.data() + (from - offset), to - from);
        }
        return BetweenChunks();
      };
      RELIGHT_RETURN_IF_ERROR(
          checkpoint_.StreamStorage(job.storage, {buffer.get(), kBufferBytes}, on_chunk));
      for (const std::size_t i : job.dense_pieces) Gather(plan_.pieces[i], range.get(), begin);
    }
    for (const std::size_t i : job.tensors) hashes_[i] = HashOf(plan_.tensors[i]);
    return absl::OkStatus();
  }

  absl::Status BetweenChunks() const {
    return hooks_.between_chunks ? hooks_.between_chunks() : absl::OkStatus();
  }

  void ExtendRange(const WeightPiece& piece, std::uint64_t& begin, std::uint64_t& end) const {
    const TensorInfo& info = checkpoint_.tree().tensor(piece.node);
    if (CountElements(info.shape) == 0) return;
    std::int64_t last = info.offset_elements;
    for (std::size_t i = 0; i < info.shape.size(); ++i)
      last += (info.shape[i] - 1) * info.stride[i];
    const std::uint64_t item = ItemSize(info.dtype);
    begin = std::min(begin, static_cast<std::uint64_t>(info.offset_elements) * item);
    end = std::max(end, (static_cast<std::uint64_t>(last) + 1) * item);
  }

  // Fills a dense piece from its storage, of which `source` has the bytes from `source_begin` on.
  void Gather(const WeightPiece& piece, const std::byte* source, std::uint64_t source_begin) {
    const TensorInfo& info = checkpoint_.tree().tensor(piece.node);
    const std::uint64_t count = CountElements(info.shape);
    if (count == 0) return;
    const std::size_t item = ItemSize(info.dtype);
    const std::byte* const first =
        source + (static_cast<std::uint64_t>(info.offset_elements) * item - source_begin);
    std::byte* const out = block_.data() + piece.offset_bytes;
    StridedReader(first, info.shape, info.stride, item).Read(out, count);
    if (info.conj) Conjugate(info.dtype, out, count);
    if (info.neg) Negate(info.dtype, out, count);
    if (info.dtype == DType::kBool) NormaliseBools(out, count);
  }

  bool HoldsBools(const Job& job) const {
    for (const std::size_t i : job.tensors) {
      if (plan_.tensors[i].piece == job.whole_piece) {
        return plan_.tensors[i].dtype == DType::kBool;
      }
    }
    return false;
  }

  // A tensor whose elements are just the bytes of the piece, in order.
  std::size_t CoveringTensor(const Job& job, const WeightPiece& piece) const {
    for (const std::size_t i : job.tensors) {
      const WeightTensor& tensor = plan_.tensors[i];
      if (tensor.piece == job.whole_piece && tensor.offset_bytes == piece.offset_bytes &&
          CountElements(tensor.shape) * ItemSize(tensor.dtype) == piece.size_bytes &&
          IsDense(tensor.shape, tensor.stride)) {
        return i;
      }
    }
    return kNoPiece;
  }

  bool SameView(std::size_t a, std::size_t b) const {
    const WeightTensor& x = plan_.tensors[a];
    const WeightTensor& y = plan_.tensors[b];
    return x.piece == y.piece && x.offset_bytes == y.offset_bytes && x.shape == y.shape &&
           x.stride == y.stride && x.dtype == y.dtype;
  }

  Hash HashOf(const WeightTensor& tensor) const {
    Hasher hasher;
    const std::byte* const first = block_.data() + tensor.offset_bytes;
    const std::size_t item = ItemSize(tensor.dtype);
    const std::uint64_t count = CountElements(tensor.shape);
    if (IsDense(tensor.shape, tensor.stride)) {
      if (count > 0) hasher.Add(first, count * item);
      return hasher.Finish();
    }
    constexpr std::size_t kElements = 4096;
    std::vector<std::byte> buffer(kElements * item);
    StridedReader reader(first, tensor.shape, tensor.stride, item);
    while (const std::size_t got = reader.Read(buffer.data(), kElements)) {
      hasher.Add(buffer.data(), got * item);
    }
    return hasher.Finish();
  }

  WeightsDigest Digest() const {
    Hasher hasher;
    for (std::size_t i = 0; i < plan_.tensors.size(); ++i) {
      const WeightTensor& tensor = plan_.tensors[i];
      hasher.AddText(tensor.key);
      hasher.AddText(Name(tensor.dtype));
      hasher.AddNumber(tensor.shape.size());
      for (const std::int64_t size : tensor.shape) {
        hasher.AddNumber(static_cast<std::uint64_t>(size));
      }
      hasher.Add(hashes_[i].data(), hashes_[i].size());
    }
    return WeightsDigest{hasher.Finish()};
  }

  const Checkpoint& checkpoint_;
  const WeightPlan& plan_;
  const absl::Span<std::byte> block_;
  const LoadHooks& hooks_;
  std::vector<Job> jobs_;
  std::vector<Hash> hashes_;  // Of the elements of each tensor of the plan.
};

}  // namespace

std::string WeightsDigest::ToHex() const {
  return absl::BytesToHexString(
      std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

absl::StatusOr<LoadedWeights> LoadWeights(const Checkpoint& checkpoint, const WeightPlan& plan,
                                          absl::Span<std::byte> block, const LoadHooks& hooks) {
  return Loader(checkpoint, plan, block, hooks).Load();
}

}  // namespace relight::storage
