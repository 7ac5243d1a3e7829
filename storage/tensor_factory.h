// Turns the arguments of PyTorch's rebuild functions into descriptions of tensors, checking that
// each stays within its storage.
#ifndef RELIGHT_STORAGE_TENSOR_FACTORY_H_
#define RELIGHT_STORAGE_TENSOR_FACTORY_H_

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/parse_context.h"
#include "storage/storage_table.h"
#include "storage/tree.h"

namespace relight::storage {

class TensorFactory {
 public:
  // All references outlive the factory.
  TensorFactory(ParseContext& context, const SymbolMap& symbols, const StorageTable& storages,
                bool big_endian);

  // Applies the rebuild function `meaning` (one of kRebuild*, but not kRebuildFromType*).
  // BAD_TENSOR_METADATA, UNSUPPORTED_DTYPE, LIMIT_EXCEEDED.
  absl::StatusOr<NodeId> Rebuild(Meaning meaning, const std::vector<NodeId>& arguments);

  // A copy of the tensor `tensor` as a torch.nn.Parameter.
  absl::StatusOr<NodeId> MakeParameter(NodeId tensor, bool requires_grad);

 private:
  absl::Status Bad(std::string_view message) const;
  absl::Status CheckCount(const std::vector<NodeId>& arguments, std::size_t least,
                          std::size_t most) const;
  absl::StatusOr<std::int64_t> Integer(NodeId node, std::string_view what) const;
  absl::StatusOr<bool> Boolean(NodeId node, std::string_view what) const;
  absl::StatusOr<std::vector<std::int64_t>> Extents(NodeId node, std::string_view what) const;
  absl::StatusOr<DType> DTypeOf(NodeId node) const;
  absl::Status CheckHooks(NodeId node) const;
  absl::Status CheckIsTensor(NodeId node, std::string_view what) const;
  absl::Status ReadMetadata(NodeId node, TensorInfo& info) const;

  // `items`: storage, offset, sizes, strides. `dtype` null: the storage's own.
  absl::StatusOr<TensorInfo> Strided(const std::vector<NodeId>& items, const DType* dtype);
  absl::Status CheckExtent(const TensorInfo& info, std::uint64_t storage_bytes);
  absl::StatusOr<NodeId> Add(TensorInfo info, std::string_view unsupported_because);
  absl::StatusOr<NodeId> AddStrided(TensorInfo info);

  absl::StatusOr<NodeId> TensorV1(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> TensorV2(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> TensorV3(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> Parameter(const std::vector<NodeId>& arguments, bool with_state);
  absl::StatusOr<NodeId> Quantised(const std::vector<NodeId>& arguments);
  absl::Status CheckQuantiser(NodeId node) const;
  absl::StatusOr<NodeId> Sparse(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> Meta(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> Nested(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> Wrapper(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> FromCpu(const std::vector<NodeId>& arguments);
  absl::StatusOr<NodeId> FromNumpy(const std::vector<NodeId>& arguments);

  ParseContext& context_;
  const SymbolMap& symbols_;
  const StorageTable& storages_;
  const bool big_endian_;
  std::uint64_t expanded_bytes_ = 0;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_TENSOR_FACTORY_H_
