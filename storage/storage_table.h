// The storages that a pickle names: each persistent id is checked against what was said about the
// same key before, and against the bytes that the container has for it.
#ifndef RELIGHT_STORAGE_STORAGE_TABLE_H_
#define RELIGHT_STORAGE_STORAGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/checkpoint.h"
#include "storage/parse_context.h"
#include "storage/symbols.h"
#include "storage/tree.h"

namespace relight::storage {

// What the names in the pickle mean, by node.
using SymbolMap = std::unordered_map<NodeId, Symbol>;

// Where a container keeps the bytes of its storages.
class StorageLocator {
 public:
  virtual ~StorageLocator() = default;
  // Fills in where the bytes of `info` (whose key, dtype and size_bytes are set) lie.
  virtual absl::Status Locate(const ParseContext& context, StorageInfo& info) const = 0;
};

// Whether a storage may be called that: never a path.
bool IsStorageKey(std::string_view key);

class StorageTable {
 public:
  enum class Ids { kZip, kLegacyStream };

  // All references outlive the table.
  StorageTable(ParseContext& context, const SymbolMap& symbols, const StorageLocator& locator,
               Ids ids);

  // The node that the persistent id `id` stands for: a kStorage, or in a legacy stream the class
  // that a ('module', ...) id wraps. BAD_STORAGE_REF, MISSING_RECORD, STORAGE_SIZE_MISMATCH.
  absl::StatusOr<NodeId> Load(NodeId id);

  const std::vector<StorageInfo>& storages() const { return storages_; }
  std::vector<StorageInfo> TakeStorages() { return std::move(storages_); }
  // In the order of first mention.
  const std::vector<std::string>& locations() const { return locations_; }

 private:
  absl::Status BadRef(std::string_view message) const;
  absl::StatusOr<StorageInfo> Describe(const std::vector<NodeId>& items) const;
  absl::StatusOr<NodeId> LoadModule(const std::vector<NodeId>& items) const;

  ParseContext& context_;
  const SymbolMap& symbols_;
  const StorageLocator& locator_;
  const Ids ids_;
  std::vector<StorageInfo> storages_;
  std::vector<NodeId> nodes_;
  std::unordered_map<std::string, std::uint32_t> by_key_;
  std::vector<std::string> locations_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_STORAGE_TABLE_H_
