// What the calls in a torch.save pickle amount to: containers, tensors, numpy values; and for every
// class that we do not know, an opaque node that remembers what would have been called.
#ifndef RELIGHT_STORAGE_OBJECT_FACTORY_H_
#define RELIGHT_STORAGE_OBJECT_FACTORY_H_

#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/dict_keys.h"
#include "storage/parse_context.h"
#include "storage/pickle_machine.h"
#include "storage/storage_table.h"
#include "storage/symbols.h"
#include "storage/tensor_factory.h"
#include "storage/tree.h"

namespace relight::storage {

class TorchObjectFactory final : public ObjectFactory {
 public:
  // All references outlive the factory.
  TorchObjectFactory(ParseContext& context, DictKeys& keys, const StorageLocator& locator,
                     StorageTable::Ids ids, bool big_endian);

  absl::StatusOr<NodeId> MakeSymbol(std::string_view module, std::string_view name) override;
  absl::StatusOr<NodeId> Call(NodeId callable, NodeId arguments, OpaqueMake how) override;
  absl::Status Build(NodeId object, NodeId state) override;
  absl::StatusOr<NodeId> LoadPersistent(NodeId id) override { return storages_.Load(id); }

  StorageTable& storages() { return storages_; }
  // Distinct classes of opaque nodes, as "module.name", in order of appearance.
  std::vector<std::string> TakeOpaqueClasses() { return std::move(opaque_classes_); }

 private:
  using Arguments = std::vector<NodeId>;

  absl::Status BadValue(std::string_view message) const;
  Meaning MeaningOf(NodeId node) const;

  // Nullopt: the call has no meaning of ours after all, and the object stays opaque.
  using MaybeNode = absl::StatusOr<std::optional<NodeId>>;
  MaybeNode Apply(Meaning meaning, const Arguments& arguments);
  MaybeNode ApplyContainer(Meaning meaning, const Arguments& arguments);
  MaybeNode ApplyValue(Meaning meaning, const Arguments& arguments);
  MaybeNode ApplyTensor(Meaning meaning, const Arguments& arguments);

  // `node`, which was of a `type` that its kind does not tell.
  MaybeNode LosingType(NodeId node, std::string_view type);
  MaybeNode MakeTorchVersion(NodeId text);
  MaybeNode MakeOrderedDict(const Arguments& arguments);
  MaybeNode CopyDict(NodeKind kind, const Arguments& arguments);
  MaybeNode CopySet(NodeKind kind, const Arguments& arguments);
  MaybeNode Encode(NodeKind kind, const Arguments& arguments);
  MaybeNode MakeByteArray(const Arguments& arguments);
  MaybeNode MakeComplex(const Arguments& arguments);
  MaybeNode MakeSize(const Arguments& arguments);
  MaybeNode MakeDevice(const Arguments& arguments);
  MaybeNode MakeParameter(const Arguments& arguments);
  MaybeNode FromType(const Arguments& arguments);
  MaybeNode FromBuffer(const Arguments& arguments);
  absl::StatusOr<NodeId> MakeOpaque(NodeId callable, NodeId arguments, OpaqueMake how);

  absl::Status BuildOpaque(NodeId object, NodeId state);
  absl::Status BuildOrderedDict(NodeId object, NodeId state);
  absl::Status BuildParameter(NodeId object, NodeId state);

  ParseContext& context_;
  Tree& tree_;
  DictKeys& keys_;
  SymbolMap symbols_;
  StorageTable storages_;
  TensorFactory tensors_;
  std::unordered_set<NodeId> bare_parameters_;  // Made by NEWOBJ, which BUILD may follow.
  std::unordered_set<NodeId> reported_classes_;
  std::vector<std::string> opaque_classes_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_OBJECT_FACTORY_H_
