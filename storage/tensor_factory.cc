#include "storage/tensor_factory.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/status_macros.h"

namespace relight::storage {
namespace {

bool IsTensor(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kTensor) || tree.Is(node, NodeKind::kUnsupportedTensor);
}

bool IsQuantised(DType dtype) {
  return dtype == DType::kQInt8 || dtype == DType::kQUInt8 || dtype == DType::kQInt32 ||
         dtype == DType::kQUInt4x2 || dtype == DType::kQUInt2x4;
}

}  // namespace

TensorFactory::TensorFactory(ParseContext& context, const SymbolMap& symbols,
                             const StorageTable& storages, bool big_endian)
    : context_(context), symbols_(symbols), storages_(storages), big_endian_(big_endian) {}

absl::StatusOr<NodeId> TensorFactory::Rebuild(Meaning meaning,
                                              const std::vector<NodeId>& arguments) {
  switch (meaning) {
    case Meaning::kRebuildTensor:
      return TensorV1(arguments);
    case Meaning::kRebuildTensorV2:
      return TensorV2(arguments);
    case Meaning::kRebuildTensorV3:
      return TensorV3(arguments);
    case Meaning::kRebuildParameter:
      return Parameter(arguments, false);
    case Meaning::kRebuildParameterWithState:
      return Parameter(arguments, true);
    case Meaning::kRebuildQTensor:
      return Quantised(arguments);
    case Meaning::kRebuildSparseTensor:
    case Meaning::kRebuildSparseCsrTensor:
      return Sparse(arguments);
    case Meaning::kRebuildMetaTensor:
      return Meta(arguments);
    case Meaning::kRebuildNestedTensor:
      return Nested(arguments);
    case Meaning::kRebuildWrapperSubclass:
      return Wrapper(arguments);
    case Meaning::kRebuildDeviceTensorFromCpu:
      return FromCpu(arguments);
    case Meaning::kRebuildDeviceTensorFromNumpy:
      return FromNumpy(arguments);
    default:
      return Bad("is rebuilt by something that does not rebuild tensors");
  }
}

absl::Status TensorFactory::Bad(std::string_view message) const {
  return context_.Error(ErrorCode::kBadTensorMetadata,
                        absl::StrCat("a tensor ", std::string(message)));
}

absl::Status TensorFactory::CheckCount(const std::vector<NodeId>& arguments, std::size_t least,
                                       std::size_t most) const {
  if (arguments.size() >= least && arguments.size() <= most) return absl::OkStatus();
  return Bad(absl::StrCat("is rebuilt from ", arguments.size(), " arguments, not from ", least,
                          least == most ? "" : absl::StrCat(" to ", most)));
}

absl::StatusOr<std::int64_t> TensorFactory::Integer(NodeId node, std::string_view what) const {
  const Tree& tree = context_.tree();
  if (tree.Is(node, NodeKind::kInt) && tree.integer(node) >= 0) return tree.integer(node);
  return Bad(
      absl::StrCat("has a ", std::string(what), " that is not a non-negative 64-bit integer"));
}

absl::StatusOr<bool> TensorFactory::Boolean(NodeId node, std::string_view what) const {
  const Tree& tree = context_.tree();
  if (tree.Is(node, NodeKind::kBool)) return tree.boolean(node);
  return Bad(absl::StrCat("has a ", std::string(what), " that is not True or False"));
}

absl::StatusOr<std::vector<std::int64_t>> TensorFactory::Extents(NodeId node,
                                                                 std::string_view what) const {
  const Tree& tree = context_.tree();
  if (!tree.Is(node, NodeKind::kTuple) && !tree.Is(node, NodeKind::kSize) &&
      !tree.Is(node, NodeKind::kList)) {
    return Bad(absl::StrCat("has ", std::string(what), "s that are not a tuple"));
  }
  const std::vector<NodeId>& items = tree.items(node);
  if (items.size() > context_.limits().max_rank) {
    return Bad(absl::StrCat("has ", items.size(), " dimensions, the limit is ",
                            context_.limits().max_rank));
  }
  std::vector<std::int64_t> extents;
  for (const NodeId item : items) {
    RELIGHT_ASSIGN_OR_RETURN(const std::int64_t extent, Integer(item, what));
    extents.push_back(extent);
  }
  return extents;
}

absl::StatusOr<DType> TensorFactory::DTypeOf(NodeId node) const {
  if (!context_.tree().Is(node, NodeKind::kDType)) return Bad("has a dtype that is none");
  const auto symbol = symbols_.find(node);
  if (symbol != symbols_.end() && symbol->second.has_dtype) return symbol->second.dtype;
  return context_.Error(ErrorCode::kUnsupportedDType,
                        absl::StrCat("a tensor has dtype ", std::string(context_.tree().text(node)),
                                     ", which has no known size"));
}

absl::Status TensorFactory::CheckHooks(NodeId node) const {
  if (context_.tree().IsDict(node)) return absl::OkStatus();
  return Bad("has backward hooks that are not a dict");
}

absl::Status TensorFactory::CheckIsTensor(NodeId node, std::string_view what) const {
  if (IsTensor(context_.tree(), node)) return absl::OkStatus();
  return Bad(absl::StrCat("has ", std::string(what), " that are no tensor"));
}

absl::Status TensorFactory::ReadMetadata(NodeId node, TensorInfo& info) const {
  const Tree& tree = context_.tree();
  if (tree.Is(node, NodeKind::kNone)) return absl::OkStatus();
  if (!tree.IsDict(node)) return Bad("has metadata that are not a dict");
  for (const auto& [key, value] : tree.pairs(node)) {
    if (!tree.Is(key, NodeKind::kString)) continue;
    const bool is_conj = tree.text(key) == "conj";
    if (!is_conj && tree.text(key) != "neg") continue;
    RELIGHT_ASSIGN_OR_RETURN(const bool set, Boolean(value, is_conj ? "conj bit" : "neg bit"));
    (is_conj ? info.conj : info.neg) = set;
  }
  if (info.conj && !IsComplex(info.dtype)) return Bad("is conjugated but not complex");
  return absl::OkStatus();
}

absl::StatusOr<TensorInfo> TensorFactory::Strided(const std::vector<NodeId>& items,
                                                  const DType* dtype) {
  const Tree& tree = context_.tree();
  if (!tree.Is(items[0], NodeKind::kStorage)) {
    return Bad(absl::StrCat("has a ", std::string(Name(tree.kind(items[0]))),
                            " where its storage belongs"));
  }
  TensorInfo info;
  info.storage = tree.storage(items[0]);
  const StorageInfo& storage = storages_.storages()[info.storage];
  info.dtype = dtype != nullptr ? *dtype : storage.dtype;
  if (dtype != nullptr && big_endian_ && ItemSize(*dtype) > 1) {
    return context_.Error(ErrorCode::kUnsupportedDType,
                          "the file is big-endian and holds an untyped storage, whose bytes "
                          "cannot be put into order");
  }
  RELIGHT_ASSIGN_OR_RETURN(info.offset_elements, Integer(items[1], "storage offset"));
  RELIGHT_ASSIGN_OR_RETURN(info.shape, Extents(items[2], "size"));
  RELIGHT_ASSIGN_OR_RETURN(info.stride, Extents(items[3], "stride"));
  if (info.shape.size() != info.stride.size()) {
    return Bad(
        absl::StrCat("has ", info.shape.size(), " sizes but ", info.stride.size(), " strides"));
  }
  RELIGHT_RETURN_IF_ERROR(CheckExtent(info, storage.size_bytes));
  return info;
}

absl::Status TensorFactory::CheckExtent(const TensorInfo& info, std::uint64_t storage_bytes) {
  if (std::find(info.shape.begin(), info.shape.end(), 0) != info.shape.end()) {
    return absl::OkStatus();  // Honest files hold empty views beyond the end of a storage.
  }
  const auto item_bytes = static_cast<std::int64_t>(ItemSize(info.dtype));
  std::optional<std::int64_t> bytes = item_bytes;
  std::optional<std::int64_t> last = info.offset_elements;
  for (std::size_t i = 0; i < info.shape.size(); ++i) {
    bytes = CheckedMul(*bytes, info.shape[i]);
    const std::optional<std::int64_t> reach = CheckedMul(info.shape[i] - 1, info.stride[i]);
    last = reach.has_value() ? CheckedAdd(*last, *reach) : std::nullopt;
    if (!bytes.has_value() || !last.has_value()) {
      return Bad("has sizes and strides whose product does not fit 64 bits");
    }
  }
  const std::optional<std::int64_t> end = CheckedAdd(*last, std::int64_t{1});
  const std::optional<std::int64_t> end_bytes =
      end.has_value() ? CheckedMul(*end, item_bytes) : std::nullopt;
  if (!end_bytes.has_value() || static_cast<std::uint64_t>(*end_bytes) > storage_bytes) {
    return Bad(absl::StrCat("reaches element ", *last, " of ", std::string(Name(info.dtype)),
                            " in a storage of ", storage_bytes, " bytes"));
  }
  const auto logical_bytes = static_cast<std::uint64_t>(*bytes);
  if (logical_bytes > context_.limits().max_tensor_bytes) {
    return context_.Error(ErrorCode::kLimitExceeded,
                          absl::StrCat("a tensor has ", logical_bytes, " bytes, the limit is ",
                                       context_.limits().max_tensor_bytes));
  }
  if (logical_bytes > storage_bytes) {
    expanded_bytes_ += logical_bytes;
    if (expanded_bytes_ > context_.limits().max_expanded_bytes) {
      return context_.Error(ErrorCode::kLimitExceeded,
                            absl::StrCat("tensors expand their storages to more than ",
                                         context_.limits().max_expanded_bytes, " bytes"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<NodeId> TensorFactory::Add(TensorInfo info, std::string_view unsupported_because) {
  RELIGHT_RETURN_IF_ERROR(
      context_.Charge(sizeof(TensorInfo) + 2 * sizeof(std::int64_t) * info.shape.size()));
  if (unsupported_because.empty()) return context_.tree().AddTensor(std::move(info));
  return context_.tree().AddUnsupportedTensor(std::move(info), unsupported_because);
}

absl::StatusOr<NodeId> TensorFactory::AddStrided(TensorInfo info) {
  if (storages_.storages()[info.storage].location == "meta") return Add(std::move(info), "meta");
  if (IsQuantised(info.dtype)) return Add(std::move(info), "quantized");
  return Add(std::move(info), {});
}

absl::StatusOr<NodeId> TensorFactory::TensorV1(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 4, 4));
  RELIGHT_ASSIGN_OR_RETURN(TensorInfo info, Strided(arguments, nullptr));
  return AddStrided(std::move(info));
}

absl::StatusOr<NodeId> TensorFactory::TensorV2(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 6, 7));
  RELIGHT_ASSIGN_OR_RETURN(TensorInfo info, Strided(arguments, nullptr));
  RELIGHT_ASSIGN_OR_RETURN(info.requires_grad, Boolean(arguments[4], "requires_grad flag"));
  RELIGHT_RETURN_IF_ERROR(CheckHooks(arguments[5]));
  if (arguments.size() > 6) RELIGHT_RETURN_IF_ERROR(ReadMetadata(arguments[6], info));
  return AddStrided(std::move(info));
}

absl::StatusOr<NodeId> TensorFactory::TensorV3(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 7, 8));
  RELIGHT_ASSIGN_OR_RETURN(const DType dtype, DTypeOf(arguments[6]));
  RELIGHT_ASSIGN_OR_RETURN(TensorInfo info, Strided(arguments, &dtype));
  RELIGHT_ASSIGN_OR_RETURN(info.requires_grad, Boolean(arguments[4], "requires_grad flag"));
  RELIGHT_RETURN_IF_ERROR(CheckHooks(arguments[5]));
  if (arguments.size() > 7) RELIGHT_RETURN_IF_ERROR(ReadMetadata(arguments[7], info));
  return AddStrided(std::move(info));
}

absl::StatusOr<NodeId> TensorFactory::Parameter(const std::vector<NodeId>& arguments,
                                                bool with_state) {
  const std::size_t count = with_state ? 4 : 3;
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, count, count));
  RELIGHT_ASSIGN_OR_RETURN(const bool requires_grad, Boolean(arguments[1], "requires_grad flag"));
  RELIGHT_RETURN_IF_ERROR(CheckHooks(arguments[2]));
  RELIGHT_ASSIGN_OR_RETURN(const NodeId parameter, MakeParameter(arguments[0], requires_grad));
  if (with_state) {
    context_.tree().SetLostType(parameter, "torch.nn.parameter.Parameter with attributes");
  }
  return parameter;
}

absl::StatusOr<NodeId> TensorFactory::MakeParameter(NodeId tensor, bool requires_grad) {
  const Tree& tree = context_.tree();
  if (!IsTensor(tree, tensor)) return Bad("is a parameter made of something that is no tensor");
  TensorInfo info = tree.tensor(tensor);
  info.is_parameter = true;
  info.requires_grad = requires_grad;
  if (tree.Is(tensor, NodeKind::kTensor)) return Add(std::move(info), {});
  return Add(std::move(info), std::string(tree.text(tensor)));
}

absl::StatusOr<NodeId> TensorFactory::Quantised(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 7, 7));
  RELIGHT_ASSIGN_OR_RETURN(TensorInfo info, Strided(arguments, nullptr));
  RELIGHT_RETURN_IF_ERROR(CheckQuantiser(arguments[4]));
  RELIGHT_ASSIGN_OR_RETURN(info.requires_grad, Boolean(arguments[5], "requires_grad flag"));
  RELIGHT_RETURN_IF_ERROR(CheckHooks(arguments[6]));
  return Add(std::move(info), "quantized");
}

absl::Status TensorFactory::CheckQuantiser(NodeId node) const {
  const Tree& tree = context_.tree();
  if (!tree.Is(node, NodeKind::kTuple) || tree.items(node).empty()) {
    return Bad("is quantised without parameters");
  }
  const std::vector<NodeId>& items = tree.items(node);
  if (!tree.Is(items[0], NodeKind::kQScheme)) return Bad("is quantised by an unknown scheme");
  const bool per_channel = tree.text(items[0]).starts_with("per_channel");
  if (items.size() != (per_channel ? 4u : 3u)) {
    return Bad("is quantised with a wrong number of parameters");
  }
  if (per_channel) {
    RELIGHT_RETURN_IF_ERROR(CheckIsTensor(items[1], "scales"));
    RELIGHT_RETURN_IF_ERROR(CheckIsTensor(items[2], "zero points"));
    return Integer(items[3], "quantisation axis").status();
  }
  if (!tree.Is(items[1], NodeKind::kFloat) || !tree.Is(items[2], NodeKind::kInt)) {
    return Bad("is quantised with a scale or zero point that is no number");
  }
  return absl::OkStatus();
}

absl::StatusOr<NodeId> TensorFactory::Sparse(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 2, 2));
  const Tree& tree = context_.tree();
  if (!tree.Is(arguments[0], NodeKind::kLayout)) return Bad("is sparse without a layout");
  if (!tree.Is(arguments[1], NodeKind::kTuple)) return Bad("is sparse without data");
  const std::string layout(tree.text(arguments[0]));
  const std::vector<NodeId> data = tree.items(arguments[1]);
  const bool coo = layout == "sparse_coo";
  RELIGHT_RETURN_IF_ERROR(CheckCount(data, coo ? 3 : 4, 4));
  const std::size_t values = coo ? 1 : 2;
  for (std::size_t i = 0; i <= values; ++i) {
    RELIGHT_RETURN_IF_ERROR(CheckIsTensor(data[i], i == values ? "values" : "indices"));
  }
  TensorInfo info;
  info.dtype = tree.tensor(data[values]).dtype;
  info.storage = tree.tensor(data[values]).storage;
  RELIGHT_ASSIGN_OR_RETURN(info.shape, Extents(data[values + 1], "size"));
  if (coo && data.size() == 4 && !tree.Is(data[3], NodeKind::kNone)) {
    RELIGHT_RETURN_IF_ERROR(Boolean(data[3], "coalesced flag").status());
  }
  return Add(std::move(info), layout);
}

absl::StatusOr<NodeId> TensorFactory::Meta(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 4, 4));
  TensorInfo info;
  RELIGHT_ASSIGN_OR_RETURN(info.dtype, DTypeOf(arguments[0]));
  RELIGHT_ASSIGN_OR_RETURN(info.shape, Extents(arguments[1], "size"));
  RELIGHT_ASSIGN_OR_RETURN(info.stride, Extents(arguments[2], "stride"));
  if (info.shape.size() != info.stride.size()) return Bad("has more sizes than strides, or fewer");
  RELIGHT_ASSIGN_OR_RETURN(info.requires_grad, Boolean(arguments[3], "requires_grad flag"));
  return Add(std::move(info), "meta");
}

absl::StatusOr<NodeId> TensorFactory::Nested(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 4, 4));
  RELIGHT_RETURN_IF_ERROR(CheckIsTensor(arguments[0], "values"));
  TensorInfo info;
  info.dtype = context_.tree().tensor(arguments[0]).dtype;
  return Add(std::move(info), "nested");
}

absl::StatusOr<NodeId> TensorFactory::Wrapper(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 8, 8));
  TensorInfo info;
  RELIGHT_ASSIGN_OR_RETURN(info.dtype, DTypeOf(arguments[1]));
  RELIGHT_ASSIGN_OR_RETURN(info.shape, Extents(arguments[2], "size"));
  RELIGHT_ASSIGN_OR_RETURN(info.stride, Extents(arguments[3], "stride"));
  if (info.shape.size() != info.stride.size()) return Bad("has more sizes than strides, or fewer");
  return Add(std::move(info), "wrapper subclass");
}

absl::StatusOr<NodeId> TensorFactory::FromCpu(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 4, 4));
  const Tree& tree = context_.tree();
  RELIGHT_RETURN_IF_ERROR(CheckIsTensor(arguments[0], "values"));
  RELIGHT_ASSIGN_OR_RETURN(const DType dtype, DTypeOf(arguments[1]));
  TensorInfo info = tree.tensor(arguments[0]);
  RELIGHT_ASSIGN_OR_RETURN(info.requires_grad, Boolean(arguments[3], "requires_grad flag"));
  if (tree.Is(arguments[0], NodeKind::kUnsupportedTensor)) {
    return Add(std::move(info), std::string(tree.text(arguments[0])));
  }
  if (dtype != info.dtype) return Add(std::move(info), "converted to another dtype on its device");
  return Add(std::move(info), {});
}

absl::StatusOr<NodeId> TensorFactory::FromNumpy(const std::vector<NodeId>& arguments) {
  RELIGHT_RETURN_IF_ERROR(CheckCount(arguments, 4, 4));
  const Tree& tree = context_.tree();
  if (!tree.Is(arguments[0], NodeKind::kNumpyArray)) {
    return Bad("is made from something that is no numpy array");
  }
  TensorInfo info;
  RELIGHT_ASSIGN_OR_RETURN(info.dtype, DTypeOf(arguments[1]));
  info.shape = tree.array(arguments[0]).shape;
  return Add(std::move(info), "numpy array on a device");
}

}  // namespace relight::storage
