// PlanWeights: which storages a load reads, and where each goes in the block.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/error.h"
#include "storage/strided.h"
#include "storage/weights.h"

namespace relight::storage {
namespace {

// A storage is kept whole unless more than half of it, and more than this, is not wanted.
constexpr std::uint64_t kMinWasteBytes = std::uint64_t{64} << 10;
constexpr std::size_t kMaxShownProblems = 32;

bool IsServable(DType dtype) {
  switch (dtype) {
    case DType::kBool:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
    case DType::kFloat16:
    case DType::kBFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
    case DType::kComplex64:
    case DType::kComplex128:
      return true;
    default:
      return false;
  }
}

std::uint64_t DenseBytes(const TensorInfo& info) {
  return CountElements(info.shape) * ItemSize(info.dtype);
}

// Two tensors that agree in this are the same view of the same storage.
using View = std::tuple<std::uint32_t, DType, std::int64_t, std::vector<std::int64_t>,
                        std::vector<std::int64_t>, bool, bool>;

View ViewOf(const TensorInfo& info) {
  return {info.storage, info.dtype, info.offset_elements, info.shape, info.stride,
          info.conj,    info.neg};
}

class Planner {
 public:
  Planner(const Checkpoint& checkpoint, const StateDict& state_dict)
      : checkpoint_(checkpoint), tree_(checkpoint.tree()), state_dict_(state_dict) {}

  absl::StatusOr<WeightPlan> Plan(absl::Span<const std::string> keys) {
    Select(keys);
    RELIGHT_RETURN_IF_ERROR(CheckServable());
    Survey();
    for (const StateDictEntry* entry : wanted_) RELIGHT_RETURN_IF_ERROR(Place(*entry));
    return std::move(plan_);
  }

 private:
  // What the wanted tensors make of one storage.
  struct Use {
    std::uint64_t wanted_bytes = 0;
    bool has_bools = false;
    bool has_others = false;
  };

  void Select(absl::Span<const std::string> keys) {
    const std::unordered_set<std::string> set(keys.begin(), keys.end());
    for (const StateDictEntry& entry : state_dict_.entries) {
      if (set.empty() || set.contains(entry.key)) wanted_.push_back(&entry);
    }
  }

  absl::Status CheckServable() const {
    std::vector<std::string> problems;
    ErrorCode code = ErrorCode::kUnsupportedDType;
    for (const StateDictEntry* entry : wanted_) {
      const TensorInfo& info = tree_.tensor(entry->node);
      if (tree_.Is(entry->node, NodeKind::kUnsupportedTensor)) {
        code = ErrorCode::kUnsupportedLayout;
        problems.push_back(
            absl::StrCat(Escape(entry->original_key), " is ", Escape(tree_.text(entry->node))));
      } else if (!IsServable(info.dtype)) {
        problems.push_back(absl::StrCat(Escape(entry->original_key), " has dtype ",
                                        std::string(Name(info.dtype))));
      } else if (info.neg && info.dtype == DType::kBool) {
        problems.push_back(absl::StrCat(Escape(entry->original_key), " is a negated bool"));
      }
    }
    if (problems.empty()) return absl::OkStatus();
    const std::size_t count = problems.size();
    problems.resize(std::min(count, kMaxShownProblems));
    return MakeError(
        code, absl::StrCat(count, " tensors cannot be served: ", absl::StrJoin(problems, "; "),
                           count > kMaxShownProblems ? "; ..." : ""));
  }

  // A lazy conjugation or negation is resolved into a dense place; so is a view of no element,
  // which need not lie within its storage.
  static bool NeedsOwnPlace(const TensorInfo& info) {
    return info.conj || info.neg || CountElements(info.shape) == 0;
  }

  void Survey() {
    std::map<View, int> seen;
    for (const StateDictEntry* entry : wanted_) {
      const TensorInfo& info = tree_.tensor(entry->node);
      if (NeedsOwnPlace(info) || !seen.emplace(ViewOf(info), 0).second) continue;
      Use& use = uses_[info.storage];
      use.wanted_bytes += DenseBytes(info);
      (info.dtype == DType::kBool ? use.has_bools : use.has_others) = true;
    }
  }

  bool KeepsStorage(const TensorInfo& info) const {
    if (NeedsOwnPlace(info)) return false;
    const Use& use = uses_.at(info.storage);
    // Bytes that are bools for one tensor only cannot be normalised in place.
    if (info.dtype == DType::kBool && use.has_others) return false;
    const std::uint64_t size_bytes = checkpoint_.storages()[info.storage].size_bytes;
    const std::uint64_t waste = size_bytes > use.wanted_bytes ? size_bytes - use.wanted_bytes : 0;
    return waste <= std::max(kMinWasteBytes, use.wanted_bytes);
  }

  absl::Status Place(const StateDictEntry& entry) {
    const TensorInfo& info = tree_.tensor(entry.node);
    WeightTensor tensor;
    tensor.key = entry.key;
    tensor.original_key = entry.original_key;
    tensor.node = entry.node;
    tensor.dtype = info.dtype;
    tensor.shape = info.shape;
    if (KeepsStorage(info)) {
      RELIGHT_ASSIGN_OR_RETURN(tensor.piece, WholePiece(info.storage));
      tensor.stride = info.stride;
      tensor.offset_bytes = plan_.pieces[tensor.piece].offset_bytes +
                            static_cast<std::uint64_t>(info.offset_elements) * ItemSize(info.dtype);
    } else {
      RELIGHT_ASSIGN_OR_RETURN(tensor.piece, DensePiece(info, entry.node));
      tensor.stride = DenseStride(info.shape);
      tensor.offset_bytes = plan_.pieces[tensor.piece].offset_bytes;
    }
    plan_.tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  }

  absl::StatusOr<std::size_t> WholePiece(std::uint32_t storage) {
    const auto [known, is_new] = whole_.emplace(storage, plan_.pieces.size());
    if (!is_new) return known->second;
    WeightPiece piece;
    piece.storage = storage;
    piece.size_bytes = checkpoint_.storages()[storage].size_bytes;
    piece.verbatim = true;
    return AddPiece(piece);
  }

  absl::StatusOr<std::size_t> DensePiece(const TensorInfo& info, NodeId node) {
    const auto [known, is_new] = dense_.emplace(ViewOf(info), plan_.pieces.size());
    if (!is_new) return known->second;
    WeightPiece piece;
    piece.storage = info.storage;
    piece.size_bytes = DenseBytes(info);
    piece.verbatim = false;
    piece.node = node;
    return AddPiece(piece);
  }

  absl::StatusOr<std::size_t> AddPiece(WeightPiece piece) {
    piece.offset_bytes = plan_.total_bytes;
    const std::optional<std::uint64_t> end = CheckedAdd(plan_.total_bytes, piece.size_bytes);
    const std::optional<std::uint64_t> padded =
        end.has_value() ? CheckedAdd(*end, std::uint64_t{kWeightAlignment - 1}) : std::nullopt;
    if (!padded.has_value()) {
      return MakeError(ErrorCode::kLimitExceeded, "the weights need more memory than there can be");
    }
    plan_.total_bytes = *padded / kWeightAlignment * kWeightAlignment;
    plan_.pieces.push_back(piece);
    return plan_.pieces.size() - 1;
  }

  const Checkpoint& checkpoint_;
  const Tree& tree_;
  const StateDict& state_dict_;
  std::vector<const StateDictEntry*> wanted_;
  std::unordered_map<std::uint32_t, Use> uses_;
  std::unordered_map<std::uint32_t, std::size_t> whole_;
  std::map<View, std::size_t> dense_;
  WeightPlan plan_;
};

}  // namespace

absl::StatusOr<WeightPlan> PlanWeights(const Checkpoint& checkpoint, const StateDict& state_dict,
                                       absl::Span<const std::string> keys) {
  return Planner(checkpoint, state_dict).Plan(keys);
}

}  // namespace relight::storage
