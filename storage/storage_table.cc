#include "storage/storage_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxKeyBytes = 64;
constexpr std::size_t kMaxLocations = 64;

bool IsText(const Tree& tree, NodeId node, std::string_view text) {
  return tree.Is(node, NodeKind::kString) && tree.text(node) == text;
}

}  // namespace

bool IsStorageKey(std::string_view key) {
  if (key.empty() || key.size() > kMaxKeyBytes) return false;
  return std::all_of(key.begin(), key.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '-';
  });
}

StorageTable::StorageTable(ParseContext& context, const SymbolMap& symbols,
                           const StorageLocator& locator, Ids ids)
    : context_(context), symbols_(symbols), locator_(locator), ids_(ids) {}

absl::Status StorageTable::BadRef(std::string_view message) const {
  return context_.Error(ErrorCode::kBadStorageRef, message);
}

absl::StatusOr<NodeId> StorageTable::Load(NodeId id) {
  Tree& tree = context_.tree();
  if (!tree.Is(id, NodeKind::kTuple)) {
    return BadRef(absl::StrCat("names a storage by a ", std::string(Name(tree.kind(id))),
                               ", not by a tuple"));
  }
  const std::vector<NodeId>& items = tree.items(id);
  if (ids_ == Ids::kLegacyStream && items.size() == 4 && IsText(tree, items[0], "module")) {
    return LoadModule(items);
  }
  RELIGHT_ASSIGN_OR_RETURN(StorageInfo info, Describe(items));
  const auto known = by_key_.find(info.key);
  if (known != by_key_.end()) {
    const StorageInfo& first = storages_[known->second];
    if (first.dtype != info.dtype || first.untyped != info.untyped ||
        first.size_bytes != info.size_bytes) {
      return BadRef(absl::StrCat("describes storage ", info.key, " in two different ways"));
    }
    return nodes_[known->second];
  }
  RELIGHT_RETURN_IF_ERROR(context_.Charge(sizeof(StorageInfo) + info.location.size()));
  RELIGHT_RETURN_IF_ERROR(locator_.Locate(context_, info));
  const auto index = static_cast<std::uint32_t>(storages_.size());
  if (locations_.size() < kMaxLocations &&
      std::find(locations_.begin(), locations_.end(), info.location) == locations_.end()) {
    locations_.push_back(info.location);
  }
  by_key_.emplace(info.key, index);
  storages_.push_back(std::move(info));
  nodes_.push_back(tree.AddStorage(index));
  return nodes_.back();
}

absl::StatusOr<NodeId> StorageTable::LoadModule(const std::vector<NodeId>& items) const {
  if (!context_.tree().Is(items[1], NodeKind::kSymbol)) {
    return BadRef("has a 'module' id without a class");
  }
  return items[1];
}

absl::StatusOr<StorageInfo> StorageTable::Describe(const std::vector<NodeId>& items) const {
  const Tree& tree = context_.tree();
  const std::size_t expected = ids_ == Ids::kZip ? 5 : 6;
  if (items.size() != expected || !IsText(tree, items[0], "storage")) {
    return BadRef(
        absl::StrCat("has a persistent id that is not ('storage', ...) with ", expected, " items"));
  }
  const auto symbol = symbols_.find(items[1]);
  if (symbol == symbols_.end() || symbol->second.meaning != Meaning::kStorageClass) {
    return BadRef("names a storage of an unknown class");
  }
  if (!tree.Is(items[2], NodeKind::kString) || !IsStorageKey(tree.text(items[2]))) {
    return BadRef("names a storage by a key that is not letters, digits, '_' and '-'");
  }
  if (!tree.Is(items[3], NodeKind::kString))
    return BadRef("has a storage location that is no text");
  if (!tree.Is(items[4], NodeKind::kInt) || tree.integer(items[4]) < 0) {
    return BadRef("has a storage whose element count is not a non-negative 64-bit integer");
  }
  StorageInfo info;
  info.key = std::string(tree.text(items[2]));
  info.location = std::string(tree.text(items[3]));
  info.dtype = symbol->second.dtype;
  info.untyped = symbol->second.untyped;
  const auto count = tree.integer(items[4]);
  const std::optional<std::int64_t> bytes =
      CheckedMul(count, static_cast<std::int64_t>(ItemSize(info.dtype)));
  if (!bytes.has_value()) {
    return BadRef(absl::StrCat("claims ", count, " elements in storage ", info.key,
                               ", more than memory can address"));
  }
  info.size_bytes = static_cast<std::uint64_t>(*bytes);
  if (items.size() == 6 && !tree.Is(items[5], NodeKind::kNone)) {
    return context_.Error(ErrorCode::kUnsupportedFormat,
                          absl::StrCat("makes storage ", info.key,
                                       " a view of another, as torch before 0.4 did; load and save "
                                       "it with a newer torch"));
  }
  return info;
}

}  // namespace relight::storage
