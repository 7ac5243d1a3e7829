#include "storage/numpy_values.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/status_macros.h"
#include "storage/bytes.h"

namespace relight::storage {
namespace {

struct ElementType {
  char kind = 0;  // b i u f c
  std::size_t size_bytes = 0;
  bool big_endian = false;
};

bool IsBytes(const Tree& tree, NodeId node) {
  return tree.Is(node, NodeKind::kBytes) || tree.Is(node, NodeKind::kByteArray) ||
         // Python 2's str, which happened to be valid UTF-8.
         tree.Is(node, NodeKind::kString);
}

std::optional<ElementType> ParseTypeCode(std::string_view code) {
  ElementType type;
  if (!code.empty() && std::string_view("<>|=").find(code.front()) != std::string_view::npos) {
    type.big_endian = code.front() == '>';
    code.remove_prefix(1);
  }
  if (code.size() < 2 || code.size() > 3) return std::nullopt;
  type.kind = code[0];
  for (const char digit : code.substr(1)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    type.size_bytes = type.size_bytes * 10 + static_cast<std::size_t>(digit - '0');
  }
  const std::size_t n = type.size_bytes;
  const bool known =
      (type.kind == 'b' && n == 1) ||
      ((type.kind == 'i' || type.kind == 'u') && (n == 1 || n == 2 || n == 4 || n == 8)) ||
      (type.kind == 'f' && (n == 2 || n == 4 || n == 8)) ||
      (type.kind == 'c' && (n == 8 || n == 16));
  if (!known) return std::nullopt;
  return type;
}

// A numpy.dtype is pickled as a call with its type code and a state that has the byte order.
std::optional<ElementType> ParseDType(const Tree& tree, NodeId node) {
  if (!tree.Is(node, NodeKind::kOpaque)) return std::nullopt;
  const OpaqueInfo& opaque = tree.opaque(node);
  if (!tree.Is(opaque.callable, NodeKind::kSymbol) || tree.text(opaque.callable) != "numpy dtype") {
    return std::nullopt;
  }
  const std::vector<NodeId>& arguments = tree.items(opaque.arguments);
  if (arguments.empty() || !tree.Is(arguments[0], NodeKind::kString)) return std::nullopt;
  std::optional<ElementType> type = ParseTypeCode(tree.text(arguments[0]));
  if (!type.has_value() || opaque.states.empty()) return type;
  const NodeId state = opaque.states.back();
  if (!tree.Is(state, NodeKind::kTuple) || tree.items(state).size() < 2) return std::nullopt;
  const NodeId order = tree.items(state)[1];
  if (!tree.Is(order, NodeKind::kString) || tree.text(order).size() != 1) return std::nullopt;
  type->big_endian = tree.text(order) == ">";
  return type;
}

std::size_t SwapUnitOf(const ElementType& type) {
  return type.kind == 'c' ? type.size_bytes / 2 : type.size_bytes;
}

std::string ToLittleEndian(std::string_view bytes, const ElementType& type) {
  std::string result(bytes);
  if (type.big_endian) {
    SwapUnits({reinterpret_cast<std::byte*>(result.data()), result.size()}, SwapUnitOf(type));
  }
  return result;
}

double FromHalf(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1F;
  const int fraction = bits & 0x3FF;
  double magnitude;
  if (exponent == 0x1F) {
    magnitude = fraction == 0 ? HUGE_VAL : std::nan("");
  } else if (exponent == 0) {
    magnitude = std::ldexp(fraction, -24);
  } else {
    magnitude = std::ldexp(fraction + 0x400, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

double LoadReal(const char* bytes, std::size_t size_bytes) {
  if (size_bytes == 2) return FromHalf(LoadLittle<std::uint16_t>(bytes));
  if (size_bytes == 4) return LoadLittle<float>(bytes);
  return LoadLittle<double>(bytes);
}

NodeId AddInteger(Tree& tree, std::string_view bytes, bool is_signed) {
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), bytes.size());
  const bool high_bit = (static_cast<std::uint8_t>(bytes.back()) & 0x80) != 0;
  if (is_signed && high_bit && bytes.size() < 8) value |= ~std::uint64_t{0} << (8 * bytes.size());
  if (!is_signed && high_bit && bytes.size() == 8) {
    return tree.AddText(NodeKind::kBigInt, absl::StrCat(std::string(bytes), std::string(1, '\0')));
  }
  return tree.AddInt(static_cast<std::int64_t>(value));
}

NodeId AddElement(Tree& tree, const ElementType& type, const std::string& bytes) {
  switch (type.kind) {
    case 'b':
      return tree.AddBool(bytes[0] != 0);
    case 'i':
      return AddInteger(tree, bytes, true);
    case 'u':
      return AddInteger(tree, bytes, false);
    case 'f':
      return tree.AddFloat(LoadReal(bytes.data(), type.size_bytes));
    default:
      return tree.AddComplex(LoadReal(bytes.data(), type.size_bytes / 2),
                             LoadReal(bytes.data() + type.size_bytes / 2, type.size_bytes / 2));
  }
}

absl::StatusOr<std::optional<NumpyArrayInfo>> MakeArray(ParseContext& context, NodeId shape,
                                                        NodeId dtype, bool fortran, NodeId buffer) {
  const Tree& tree = context.tree();
  const std::optional<ElementType> type = ParseDType(tree, dtype);
  if (!type.has_value() || !tree.Is(shape, NodeKind::kTuple) || !IsBytes(tree, buffer)) {
    return std::nullopt;
  }
  const auto bad = [&](std::string_view message) {
    return context.Error(ErrorCode::kPickleBadValue, message);
  };
  NumpyArrayInfo info;
  std::optional<std::int64_t> bytes = static_cast<std::int64_t>(type->size_bytes);
  if (tree.items(shape).size() > context.limits().max_rank) {
    return bad("a numpy array has too many dimensions");
  }
  for (const NodeId item : tree.items(shape)) {
    if (!tree.Is(item, NodeKind::kInt) || tree.integer(item) < 0) {
      return bad("a numpy array has a size that is not a non-negative integer");
    }
    info.shape.push_back(tree.integer(item));
    bytes = CheckedMul(*bytes, tree.integer(item));
    if (!bytes.has_value()) return bad("a numpy array has more elements than fit 64 bits");
  }
  const std::string_view raw = tree.text(buffer);
  if (static_cast<std::uint64_t>(*bytes) != raw.size()) {
    return bad(absl::StrCat("a numpy array needs ", *bytes, " bytes but has ", raw.size()));
  }
  RELIGHT_RETURN_IF_ERROR(context.Charge(raw.size() + sizeof(NumpyArrayInfo)));
  info.dtype = absl::StrCat(std::string(1, type->kind), type->size_bytes);
  info.fortran = fortran;
  info.bytes = ToLittleEndian(raw, *type);
  return info;
}

}  // namespace

absl::StatusOr<std::optional<NodeId>> DecodeNumpyScalar(ParseContext& context,
                                                        const std::vector<NodeId>& arguments) {
  Tree& tree = context.tree();
  if (arguments.size() != 2 || !IsBytes(tree, arguments[1])) return std::nullopt;
  const std::optional<ElementType> type = ParseDType(tree, arguments[0]);
  if (!type.has_value()) return std::nullopt;
  const std::string_view raw = tree.text(arguments[1]);
  if (raw.size() != type->size_bytes) {
    return context.Error(
        ErrorCode::kPickleBadValue,
        absl::StrCat("a numpy scalar of ", type->size_bytes, " bytes has ", raw.size()));
  }
  const std::string bytes = ToLittleEndian(raw, *type);
  const NodeId value = AddElement(tree, *type, bytes);
  const NodeId scalar = tree.Add(NodeKind::kNumpyScalar);
  tree.Append(scalar, value);
  return scalar;
}

absl::StatusOr<std::optional<NumpyArrayInfo>> DecodeNumpyState(ParseContext& context,
                                                               NodeId state) {
  const Tree& tree = context.tree();
  if (!tree.Is(state, NodeKind::kTuple) || tree.items(state).size() != 5) return std::nullopt;
  const std::vector<NodeId>& items = tree.items(state);
  if (!tree.Is(items[3], NodeKind::kBool)) return std::nullopt;
  return MakeArray(context, items[1], items[2], tree.boolean(items[3]), items[4]);
}

absl::StatusOr<std::optional<NumpyArrayInfo>> DecodeNumpyBuffer(
    ParseContext& context, const std::vector<NodeId>& arguments) {
  const Tree& tree = context.tree();
  if (arguments.size() != 4 || !tree.Is(arguments[3], NodeKind::kString)) return std::nullopt;
  return MakeArray(context, arguments[2], arguments[1], tree.text(arguments[3]) == "F",
                   arguments[0]);
}

}  // namespace relight::storage
