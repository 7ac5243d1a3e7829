#include "storage/weight_comparison.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/strided.h"

namespace relight::storage {
namespace {

// A multiple of every element's size, so that no element is cut.
constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
constexpr std::size_t kMaxListed = 8;

// One tensor in the file and in memory.
struct Pair {
  const WeightTensor* in_block = nullptr;
  const TensorInfo* in_file = nullptr;
  std::uint64_t item_bytes = 0;
  // The run of its storage that the elements lie in.
  std::uint64_t begin_bytes = 0;
  std::uint64_t end_bytes = 0;
  bool same_strides = false;
  bool differs = false;
};

bool SameStrides(const WeightTensor& a, const TensorInfo& b) {
  for (std::size_t i = 0; i < a.shape.size(); ++i) {
    if (a.shape[i] != 1 && a.stride[i] != b.stride[i]) return false;
  }
  return true;
}

class Comparison {
 public:
  Comparison(const Checkpoint& written, const StateDict& state_dict, const WeightPlan& plan,
             absl::Span<const std::byte> block, const std::function<absl::Status()>& between_chunks)
      : written_(written),
        state_dict_(state_dict),
        plan_(plan),
        block_(block),
        between_chunks_(between_chunks) {}

  absl::Status Run() {
    Match();
    std::vector<std::byte> buffer(kChunkBytes);
    for (std::size_t i = 0; i < written_.storages().size(); ++i) {
      std::vector<Pair>& pairs = pairs_[i];
      RELIGHT_RETURN_IF_ERROR(written_.StreamStorage(
          i, absl::MakeSpan(buffer), [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
            for (Pair& pair : pairs) CompareChunk(offset, chunk, pair);
            return between_chunks_ ? between_chunks_() : absl::OkStatus();
          }));
      for (const Pair& pair : pairs) {
        if (pair.differs) Object(pair.in_block->key, "has other elements");
      }
    }
    if (count_ == 0) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("the file reads back with other weights than were written: ",
                     absl::StrJoin(differences_, "; "), count_ > kMaxListed ? "; ..." : ""));
  }

 private:
  void Object(const std::string& key, const std::string& what) {
    if (++count_ <= kMaxListed) differences_.push_back(absl::StrCat(Escape(key), " ", what));
  }

  void Match() {
    std::unordered_map<std::string, NodeId> by_key;
    for (const StateDictEntry& entry : state_dict_.entries) by_key.emplace(entry.key, entry.node);
    pairs_.resize(written_.storages().size());
    for (const WeightTensor& tensor : plan_.tensors) {
      const auto found = by_key.find(tensor.key);
      if (found == by_key.end()) {
        Object(tensor.key, "is missing");
      } else if (!written_.tree().Is(found->second, NodeKind::kTensor)) {
        Object(tensor.key, "cannot be read");
      } else {
        MatchTensor(tensor, written_.tree().tensor(found->second));
      }
    }
  }

  void MatchTensor(const WeightTensor& tensor, const TensorInfo& info) {
    if (info.dtype != tensor.dtype || info.shape != tensor.shape || info.conj || info.neg) {
      Object(tensor.key, "has another dtype or shape");
      return;
    }
    if (CountElements(info.shape) == 0) return;
    Pair pair;
    pair.in_block = &tensor;
    pair.in_file = &info;
    pair.item_bytes = ItemSize(info.dtype);
    pair.begin_bytes = static_cast<std::uint64_t>(info.offset_elements) * pair.item_bytes;
    const auto elements = static_cast<std::uint64_t>(LastOffset(info.shape, info.stride)) + 1;
    pair.end_bytes = pair.begin_bytes + elements * pair.item_bytes;
    pair.same_strides = SameStrides(tensor, info);
    pairs_[info.storage].push_back(pair);
  }

  void CompareChunk(std::uint64_t offset, absl::Span<const std::byte> chunk, Pair& pair) const {
    const std::uint64_t begin = std::max(offset, pair.begin_bytes);
    const std::uint64_t end = std::min(offset + chunk.size(), pair.end_bytes);
    if (begin >= end || pair.differs) return;
    const std::byte* const in_block = block_.data() + pair.in_block->offset_bytes;
    const std::byte* const in_chunk = chunk.data() + (begin - offset);
    // What lies between the elements is compared as well here; it may differ.
    if (pair.same_strides &&
        std::memcmp(in_chunk, in_block + (begin - pair.begin_bytes), end - begin) == 0) {
      return;
    }
    const auto first = static_cast<std::int64_t>((begin - pair.begin_bytes) / pair.item_bytes);
    const auto past = static_cast<std::int64_t>((end - pair.begin_bytes) / pair.item_bytes);
    ForEachRunBetween(pair.in_file->shape, pair.in_file->stride, pair.in_block->stride, first, past,
                      [&](const StridedRun& run) {
                        if (!SameRun(run, in_chunk, first, in_block, pair)) pair.differs = true;
                      });
  }

  // `in_chunk` is the element of the offset `first`.
  static bool SameRun(const StridedRun& run, const std::byte* in_chunk, std::int64_t first,
                      const std::byte* in_block, const Pair& pair) {
    const auto item = static_cast<std::int64_t>(pair.item_bytes);
    const std::byte* a = in_chunk + (run.offset - first) * item;
    const std::byte* b = in_block + run.other * item;
    const bool bools = pair.in_file->dtype == DType::kBool;
    for (std::int64_t i = 0; i < run.count; ++i) {
      const bool same = bools ? (*a != std::byte{0}) == (*b != std::byte{0})
                              : std::memcmp(a, b, pair.item_bytes) == 0;
      if (!same) return false;
      a += run.step * item;
      b += run.other_step * item;
    }
    return true;
  }

  const Checkpoint& written_;
  const StateDict& state_dict_;
  const WeightPlan& plan_;
  const absl::Span<const std::byte> block_;
  const std::function<absl::Status()>& between_chunks_;
  std::vector<std::vector<Pair>> pairs_;  // By storage of the file.
  std::vector<std::string> differences_;
  std::size_t count_ = 0;
};

}  // namespace

absl::Status CompareWithBlock(const Checkpoint& written, const StateDict& state_dict,
                              const WeightPlan& plan, absl::Span<const std::byte> block,
                              const std::function<absl::Status()>& between_chunks) {
  return Comparison(written, state_dict, plan, block, between_chunks).Run();
}

}  // namespace relight::storage
