#include "tests/storage/tree_comparison.h"

#include <bit>
#include <utility>

#include "absl/status/statusor.h"
#include "storage/tensor_stream.h"

namespace relight::storage {
namespace {

std::string Text(std::string_view text) { return std::string(text); }

absl::StatusOr<std::string> DenseBytes(const TensorInfo& tensor, const StorageSource& source) {
  std::string dense;
  const absl::Status status =
      StreamDense(tensor, source, [&dense](absl::Span<const std::byte> bytes) {
        dense.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return dense;
}

}  // namespace

PlaceComparison CompareValues(const StorageSource& before, const StorageSource& after) {
  return [&before, &after](const TensorInfo& a, const TensorInfo& b) -> std::string {
    const auto old_values = DenseBytes(a, before);
    const auto new_values = DenseBytes(b, after);
    if (!old_values.ok()) return "before: " + old_values.status().ToString();
    if (!new_values.ok()) return "after: " + new_values.status().ToString();
    return *old_values == *new_values ? "" : "other values";
  };
}

TreeComparison::TreeComparison(const Tree& before, const Tree& after, const WritePlan& plan,
                               PlaceComparison compare_places)
    : before_(before), after_(after), plan_(plan), compare_places_(std::move(compare_places)) {}

std::string TreeComparison::Difference(NodeId a, NodeId b) {
  visits_.assign(1, {a, b});
  for (std::size_t next = 0; next < visits_.size(); ++next) {
    const std::string difference = Compare(next);
    if (!difference.empty()) return Path(next) + ": " + difference;
  }
  return "";
}

std::string TreeComparison::Compare(std::size_t visit) {
  NodeId a = visits_[visit].a;
  const NodeId b = visits_[visit].b;
  // Written as the number that it stands for.
  if (before_.Is(a, NodeKind::kNumpyScalar)) a = before_.items(a)[0];
  if (before_.kind(a) != after_.kind(b)) {
    return "was a " + Text(Name(before_.kind(a))) + ", is a " + Text(Name(after_.kind(b)));
  }
  switch (before_.kind(a)) {
    case NodeKind::kNone:
      return "";
    case NodeKind::kBool:
    case NodeKind::kInt:
      return before_.integer(a) == after_.integer(b) ? "" : "another integer";
    case NodeKind::kFloat:
      return std::bit_cast<std::uint64_t>(before_.real(a)) ==
                     std::bit_cast<std::uint64_t>(after_.real(b))
                 ? ""
                 : "another float";
    case NodeKind::kBigInt:
    case NodeKind::kString:
    case NodeKind::kBytes:
    case NodeKind::kDevice:
    case NodeKind::kDType:
      return before_.text(a) == after_.text(b) ? "" : "another text";
    case NodeKind::kTensor:
      return CompareTensors(before_.tensor(a), after_.tensor(b));
    case NodeKind::kStorage:
      return CompareStorages(before_.storage(a), after_.storage(b));
    default:
      return CompareContainers(visit, a, b);
  }
}

std::string TreeComparison::CompareContainers(std::size_t visit, NodeId a, NodeId b) {
  if (!before_.IsDict(a)) {
    const std::vector<NodeId>& old_items = before_.items(a);
    const std::vector<NodeId>& new_items = after_.items(b);
    if (old_items.size() != new_items.size()) return "another number of items";
    for (std::size_t i = 0; i < old_items.size(); ++i) {
      visits_.push_back({old_items[i], new_items[i], visit, "/item ", i});
    }
    return "";
  }
  const auto& new_pairs = after_.pairs(b);
  std::size_t next = 0;
  for (const auto& [key, value] : before_.pairs(a)) {
    if (!plan_.CanWrite(key) || !plan_.CanWrite(value)) continue;
    if (next == new_pairs.size()) return "entries are missing";
    visits_.push_back({key, new_pairs[next].first, visit, "/key ", next});
    visits_.push_back({value, new_pairs[next].second, visit, "/value ", next});
    ++next;
  }
  if (next != new_pairs.size()) return "entries were added";
  if (!before_.Is(a, NodeKind::kOrderedDict)) return "";
  const NodeId old_attributes = before_.attributes(a);
  const NodeId new_attributes = after_.attributes(b);
  if ((old_attributes == kNoNode) != (new_attributes == kNoNode)) return "attributes came or went";
  if (old_attributes != kNoNode) {
    visits_.push_back({old_attributes, new_attributes, visit, "/attributes ", 0});
  }
  return "";
}

std::string TreeComparison::CompareTensors(const TensorInfo& a, const TensorInfo& b) {
  if (a.dtype != b.dtype) return "another dtype";
  if (a.shape != b.shape) return "another shape";
  if (a.requires_grad != b.requires_grad) return "another requires_grad";
  if (a.is_parameter != b.is_parameter) return "is a parameter, or no more";
  if (IsLazy(b)) return "is still lazy";
  if (std::string difference = compare_places_(a, b); !difference.empty()) return difference;
  if (IsLazy(a)) return "";  // Its values became dense, in a storage of their own.
  if (a.stride != b.stride) return "another stride";
  return CompareStorages(a.storage, b.storage);
}

std::string TreeComparison::CompareStorages(std::uint32_t a, std::uint32_t b) {
  if (to_after_.emplace(a, b).first->second != b) return "no longer shares its storage";
  if (to_before_.emplace(b, a).first->second != a) return "shares another's storage";
  return "";
}

std::string TreeComparison::Path(std::size_t visit) const {
  std::string path;
  for (; visit != 0; visit = visits_[visit].parent) {
    path.insert(0, visits_[visit].relation + std::to_string(visits_[visit].index));
  }
  return path.empty() ? "/" : path;
}

}  // namespace relight::storage
