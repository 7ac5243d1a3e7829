// Fuzzes the pickle machine, and everything that works on its tree without the tensors' bytes: the
// audit, the search for the state dict and the optimizer, snapshots, the write plan, and the pickle
// that the writer makes of them, which must be read equal. Touches no file.
#include <charconv>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "storage/bytes.h"
#include "storage/error.h"
#include "storage/object_factory.h"
#include "storage/optimizer_view.h"
#include "storage/parse_context.h"
#include "storage/pickle_machine.h"
#include "storage/snapshot_tree.h"
#include "storage/state_dict_finder.h"
#include "storage/strided.h"
#include "storage/tree_audit.h"
#include "storage/tree_pickler.h"
#include "storage/write_plan.h"
#include "tests/fuzz/checkpoint_run.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/storage/tree_comparison.h"

namespace relight::fuzz {
namespace {

using namespace storage;  // NOLINT(google-build-using-namespace): the layer under test.

// The sizes that the pickle claims are believed: a container would compare them with its records.
class ClaimedStorages final : public StorageLocator {
 public:
  absl::Status Locate(const ParseContext&, StorageInfo&) const override { return absl::OkStatus(); }
};

// What the writer would put into the container beside its pickle.
class WrittenStorages final : public StorageLocator {
 public:
  explicit WrittenStorages(const std::vector<OutputStorage>& storages) : storages_(storages) {}

  absl::Status Locate(const ParseContext&, StorageInfo& info) const override {
    Require(At(info).size_bytes == info.size_bytes, "a record is written with another size");
    return absl::OkStatus();
  }
  const OutputStorage& At(const StorageInfo& info) const {
    std::size_t key = 0;
    const char* const end = info.key.data() + info.key.size();
    Require(std::from_chars(info.key.data(), end, key).ptr == end && key < storages_.size(),
            "a storage is written under a key that has no record");
    return storages_[key];
  }

 private:
  const std::vector<OutputStorage>& storages_;
};

// For the writer, which asks for no bytes until it has its pickle.
class StorageSizes final : public StorageSource {
 public:
  explicit StorageSizes(const std::vector<StorageInfo>& storages) : storages_(storages) {}

  absl::Status Stream(std::uint32_t, const ByteSink&) const override {
    return absl::InternalError("there are no bytes");
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return storages_[index].size_bytes;
  }
  DType ElementType(std::uint32_t index) const override { return storages_[index].dtype; }
  bool IsUntyped(std::uint32_t index) const override { return storages_[index].untyped; }

 private:
  const std::vector<StorageInfo>& storages_;
};

struct Parsed {
  std::unique_ptr<Tree> tree = std::make_unique<Tree>();
  std::vector<StorageInfo> storages;
  std::size_t end = 0;
};

absl::StatusOr<Parsed> Parse(std::string_view pickle, const ReadOptions& options,
                             StorageTable::Ids ids, const StorageLocator& locator) {
  Parsed parsed;
  ParseContext context(*parsed.tree, options, "fuzz.pt: data.pkl", pickle.size());
  DictKeys keys(context);
  TorchObjectFactory factory(context, keys, locator, ids, /*big_endian=*/false);
  PickleMachine machine(context, keys, &factory);
  const auto result = machine.Run(AsBytes(pickle), 0);
  if (!result.ok()) return result.status();
  Require(result->end <= pickle.size(), "a pickle ends behind its bytes");
  parsed.end = result->end;
  parsed.tree->set_root(result->root);
  parsed.storages = factory.storages().TakeStorages();
  if (absl::Status status = AuditTree(*parsed.tree, options.limits, "fuzz.pt"); !status.ok()) {
    return status;
  }
  return parsed;
}

// Where only plain values may stand nothing is taken that would not be taken elsewhere.
void CheckPlain(std::string_view pickle, const absl::StatusOr<Parsed>& full) {
  const ReadOptions options = SmallLimits();
  Tree tree;
  ParseContext context(tree, options, "fuzz.pt: system information", pickle.size());
  DictKeys keys(context);
  const auto plain = PickleMachine(context, keys, nullptr).Run(AsBytes(pickle), 0);
  if (!plain.ok()) return CheckRefusal(plain.status());
  if (!full.ok()) {
    Require(GetErrorCode(full.status()) == ErrorCode::kLimitExceeded, full.status().ToString());
    return;
  }
  Require(plain->end == full->end && tree.size() == full->tree->size(),
          "plain values are read in two ways");
  for (NodeId node = 0; node < tree.size(); ++node) {
    Require(tree.kind(node) == full->tree->kind(node), "plain values are read in two ways");
  }
}

// That a written tensor lies at the same bytes of the same storage as before.
PlaceComparison ComparePlaces(const Parsed& after, const WrittenStorages& written) {
  return [&after, &written](const TensorInfo& a, const TensorInfo& b) -> std::string {
    const OutputStorage& record = written.At(after.storages[b.storage]);
    if (record.source != a.storage) return "another storage";
    if ((record.resolved != kNoNode) != IsLazy(a)) return "lazy values are not resolved";
    const std::uint64_t item = ItemSize(a.dtype);
    const std::uint64_t offset = static_cast<std::uint64_t>(b.offset_elements) * item;
    if (IsLazy(a)) {
      return offset == 0 && b.stride == DenseStride(a.shape) ? "" : "resolved values not dense";
    }
    if (CountElements(a.shape) == 0) return "";
    return static_cast<std::uint64_t>(a.offset_elements) * item == record.begin_bytes + offset
               ? ""
               : "another place in the storage";
  };
}

void CheckRoundTrip(const Tree& tree, NodeId root, const std::vector<StorageInfo>& storages) {
  const auto plan = WritePlan::Make(tree, root);
  if (!plan.ok()) {
    Require(GetErrorCode(plan.status()) == ErrorCode::kPickleCycle, plan.status().ToString());
    return;
  }
  const auto pickled = PickleTree(tree, root, *plan, StorageSizes(storages));
  if (!pickled.ok()) {
    Require(!plan->CanWrite(root), pickled.status().ToString());
    return;
  }
  const WrittenStorages written(pickled->storages);
  const auto after = Parse(pickled->pickle, ReadOptions(), StorageTable::Ids::kZip, written);
  Require(after.ok(), "what was written is refused: " + after.status().ToString());
  Require(after->end == pickled->pickle.size(), "what was written ends too early");
  const std::string difference =
      TreeComparison(tree, *after->tree, *plan, ComparePlaces(*after, written))
          .Difference(root, after->tree->root());
  Require(difference.empty(), "what was written differs at " + difference);
}

// What a snapshot of these weights would write.
void CheckSnapshots(const Parsed& parsed, const StateDict& state_dict) {
  for (const bool weights_only : {true, false}) {
    // Everything as it was has been written already.
    if (!weights_only && !state_dict.from_module) continue;
    const auto snapshot = MakeSnapshotTree(*parsed.tree, state_dict, weights_only);
    if (snapshot.ok()) {
      CheckRoundTrip(snapshot->tree, snapshot->root, parsed.storages);
    } else {
      Require(!weights_only && absl::IsInvalidArgument(snapshot.status()),
              snapshot.status().ToString());
    }
  }
}

void CheckStateDict(const Parsed& parsed, absl::Span<const std::string> wanted_keys) {
  const Tree& tree = *parsed.tree;
  StateDictOptions options;
  options.wanted_keys = wanted_keys;
  const auto found = FindStateDictInTree(tree, "fuzz.pt", options);
  if (!found.ok()) return CheckRefusal(found.status());
  std::set<std::string> keys;
  for (const StateDictEntry& entry : found->entries) {
    Require(keys.insert(entry.key).second, "two entries of a state dict have one key");
    Require(
        tree.Is(entry.node, NodeKind::kTensor) || tree.Is(entry.node, NodeKind::kUnsupportedTensor),
        "an entry of a state dict is no tensor");
  }
  if (wanted_keys.empty()) CheckSnapshots(parsed, *found);
}

void CheckOptimizer(const Tree& tree, NodeId node) {
  const auto view = ViewOptimizer(tree, node);
  if (!view) return;
  for (const OptimizerGroup& group : view->groups) {
    for (const auto& [name, value] : group.settings) {
      Require(value < tree.size(), "a setting of an optimizer is no value: " + name);
    }
  }
}

// The optimizer as a bundle has it, or alone.
void CheckOptimizers(const Tree& tree) {
  CheckOptimizer(tree, tree.root());
  if (!tree.IsDict(tree.root())) return;
  for (const auto& [key, value] : tree.pairs(tree.root())) CheckOptimizer(tree, value);
}

void Run(std::string_view pickle) {
  const ClaimedStorages claimed;
  const ReadOptions options = SmallLimits();
  absl::StatusOr<Parsed> parsed = Parse(pickle, options, StorageTable::Ids::kZip, claimed);
  if (GetErrorCode(parsed.status()) == ErrorCode::kBadStorageRef) {
    // The older stream names its storages otherwise.
    parsed = Parse(pickle, options, StorageTable::Ids::kLegacyStream, claimed);
  }
  CheckPlain(pickle, parsed);
  if (!parsed.ok()) return CheckRefusal(parsed.status());
  static const std::vector<std::string> kWanted = {"fc1.weight", "fc1.bias", "weight"};
  CheckStateDict(*parsed, {});
  CheckStateDict(*parsed, kWanted);
  CheckOptimizers(*parsed->tree);
  CheckRoundTrip(*parsed->tree, parsed->tree->root(), parsed->storages);
}

}  // namespace
}  // namespace relight::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  relight::fuzz::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
