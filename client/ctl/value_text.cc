#include "client/ctl/value_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "client/ctl/half.h"
#include "server/network/tensor_spec.h"
#include "storage/state_dict_finder.h"
#include "storage/strided.h"

namespace relight::ctl {
namespace {

using storage::Checkpoint;
using storage::NodeId;
using storage::NodeKind;
using storage::TensorInfo;
using storage::Tree;
using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxItems = 8;
constexpr std::size_t kMaxKeys = 6;
constexpr std::size_t kMaxTextBytes = 64;
constexpr std::size_t kMaxJsonTextBytes = 4096;
constexpr std::uint64_t kMaxScalarStorageBytes = 4096;
constexpr int kMaxDepth = 2;

// Floating point numbers keep the digits of their own type: 0.1, not 0.10000000149011612.
template <typename Float>
std::string ShortestText(Float value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char text[64];
  const auto written = std::to_chars(text, text + sizeof(text), value);
  std::string shortest(text, written.ptr);
  if (shortest.find_first_not_of("-0123456789") == std::string::npos) shortest += ".0";
  return shortest;
}

template <typename T>
T Read(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// A number, as text that JSON takes too where it is finite.
std::optional<std::string> ElementText(DType dtype, const std::byte* bytes) {
  switch (dtype) {
    case DType::kBool:
      return Read<std::uint8_t>(bytes) != 0 ? "true" : "false";
    case DType::kUInt8:
      return absl::StrCat(Read<std::uint8_t>(bytes));
    case DType::kInt8:
      return absl::StrCat(Read<std::int8_t>(bytes));
    case DType::kInt16:
      return absl::StrCat(Read<std::int16_t>(bytes));
    case DType::kInt32:
      return absl::StrCat(Read<std::int32_t>(bytes));
    case DType::kInt64:
      return absl::StrCat(Read<std::int64_t>(bytes));
    case DType::kFloat16:
      return ShortestText(Fp16ToFloat(Read<std::uint16_t>(bytes)));
    case DType::kBFloat16:
      return ShortestText(Bf16ToFloat(Read<std::uint16_t>(bytes)));
    case DType::kFloat32:
      return ShortestText(Read<float>(bytes));
    case DType::kFloat64:
      return ShortestText(Read<double>(bytes));
    default:
      return std::nullopt;
  }
}

bool IsScalarTensor(const Tree& tree, NodeId node) {
  if (!tree.Is(node, NodeKind::kTensor)) return false;
  const TensorInfo& info = tree.tensor(node);
  return storage::CountElements(info.shape) == 1 && !info.neg && !info.conj;
}

// Nullopt where the element cannot be read, or is not worth it: one of a large storage.
std::optional<std::string> ScalarTensorText(const Checkpoint& checkpoint, NodeId node) {
  const TensorInfo& info = checkpoint.tree().tensor(node);
  const std::uint64_t size_bytes = checkpoint.storages()[info.storage].size_bytes;
  if (size_bytes > kMaxScalarStorageBytes) return std::nullopt;
  std::vector<std::byte> bytes(static_cast<std::size_t>(size_bytes));
  if (!checkpoint.ReadStorage(info.storage, absl::MakeSpan(bytes)).ok()) return std::nullopt;
  const std::uint64_t at = static_cast<std::uint64_t>(info.offset_elements) * ItemSize(info.dtype);
  return ElementText(info.dtype, bytes.data() + at);
}

std::string TensorText(const Tree& tree, NodeId node) {
  const TensorInfo& info = tree.tensor(node);
  const std::string what = absl::StrCat(std::string(Name(info.dtype)), " ", ShapeText(info.shape));
  if (tree.Is(node, NodeKind::kTensor)) return what;
  return absl::StrCat(Escape(tree.text(node), kMaxTextBytes), " ", what);
}

class Describer {
 public:
  explicit Describer(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), tree_(checkpoint.tree()) {}

  std::string Text(NodeId node, int depth) const {
    switch (tree_.kind(node)) {
      case NodeKind::kNone:
        return "None";
      case NodeKind::kBool:
        return tree_.boolean(node) ? "True" : "False";
      case NodeKind::kInt:
        return absl::StrCat(tree_.integer(node));
      case NodeKind::kBigInt:
        return absl::StrCat("an integer of ", tree_.text(node).size(), " bytes");
      case NodeKind::kFloat:
        return FloatText(tree_.real(node));
      case NodeKind::kComplex: {
        const auto [real, imaginary] = tree_.complex(node);
        return absl::StrCat("complex(", FloatText(real), ", ", FloatText(imaginary), ")");
      }
      case NodeKind::kString:
        return absl::StrCat("\"", Escape(tree_.text(node), kMaxTextBytes), "\"");
      case NodeKind::kBytes:
      case NodeKind::kByteArray:
        return absl::StrCat(Grouped(tree_.text(node).size()), " bytes");
      case NodeKind::kList:
        return Items(tree_.items(node), "[", "]", "list", depth);
      case NodeKind::kTuple:
        return Items(tree_.items(node), "(", ")", "tuple", depth);
      case NodeKind::kSet:
      case NodeKind::kFrozenSet:
        return Items(tree_.items(node), "{", "}", "set", depth);
      case NodeKind::kSize:
        return Items(tree_.items(node), "[", "]", "torch.Size", depth);
      case NodeKind::kDict:
      case NodeKind::kOrderedDict:
      case NodeKind::kCounter:
        return DictText(node, depth);
      case NodeKind::kDevice:
        return absl::StrCat("device ", Escape(tree_.text(node), kMaxTextBytes));
      case NodeKind::kDType:
      case NodeKind::kLayout:
      case NodeKind::kQScheme:
        return Escape(tree_.text(node), kMaxTextBytes);
      case NodeKind::kSymbol: {
        std::string name(tree_.text(node));
        if (const std::size_t space = name.find(' '); space != std::string::npos) name[space] = '.';
        return absl::StrCat("the name ", Escape(name, kMaxTextBytes));
      }
      case NodeKind::kStorage: {
        const storage::StorageInfo& info = checkpoint_.storages()[tree_.storage(node)];
        return absl::StrCat("a storage of ", Grouped(info.size_bytes), " bytes");
      }
      case NodeKind::kTensor:
        if (IsScalarTensor(tree_, node)) {
          if (const auto value = ScalarTensorText(checkpoint_, node)) {
            return absl::StrCat(*value, " (", TensorText(tree_, node), ")");
          }
        }
        return TensorText(tree_, node);
      case NodeKind::kUnsupportedTensor:
        return TensorText(tree_, node);
      case NodeKind::kNumpyScalar:
        return tree_.items(node).empty() ? "numpy scalar" : Text(tree_.items(node)[0], depth);
      case NodeKind::kNumpyArray: {
        const storage::NumpyArrayInfo& array = tree_.array(node);
        return absl::StrCat("numpy ", Escape(array.dtype, kMaxTextBytes), " ",
                            ShapeText(array.shape));
      }
      case NodeKind::kOpaque:
        return absl::StrCat(storage::IsModule(tree_, node) ? "module " : "object of ",
                            Escape(storage::ClassName(tree_, node), kMaxTextBytes));
    }
    return "?";
  }

  Json ToJson(NodeId node, int depth) const {
    switch (tree_.kind(node)) {
      case NodeKind::kNone:
        return nullptr;
      case NodeKind::kBool:
        return tree_.boolean(node);
      case NodeKind::kInt:
        return tree_.integer(node);
      case NodeKind::kFloat:
        return Real(tree_.real(node));
      case NodeKind::kString:
        return Escape(tree_.text(node), kMaxJsonTextBytes);
      case NodeKind::kNumpyScalar:
        return tree_.items(node).empty() ? Json(nullptr) : ToJson(tree_.items(node)[0], depth);
      case NodeKind::kTensor:
        if (IsScalarTensor(tree_, node)) {
          if (const auto value = ScalarTensorText(checkpoint_, node)) {
            const Json number = Json::parse(*value, nullptr, /*allow_exceptions=*/false);
            if (!number.is_discarded()) return number;
            return *value == "nan" ? "NaN" : *value == "inf" ? "Infinity" : "-Infinity";
          }
        }
        return TensorText(tree_, node);
      case NodeKind::kList:
      case NodeKind::kTuple:
      case NodeKind::kSize: {
        const std::vector<NodeId>& items = tree_.items(node);
        if (depth >= kMaxDepth || items.size() > kMaxKeys * kMaxItems) break;
        Json array = Json::array();
        for (const NodeId item : items) array.push_back(ToJson(item, depth + 1));
        return array;
      }
      default:
        break;
    }
    return Text(node, depth);
  }

 private:
  static Json Real(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return value;
  }

  std::string Items(const std::vector<NodeId>& items, const char* open, const char* close,
                    const char* kind, int depth) const {
    if (depth >= kMaxDepth || items.size() > kMaxItems) {
      return absl::StrCat(kind, " of ", Grouped(items.size()));
    }
    std::vector<std::string> texts;
    for (const NodeId item : items) texts.push_back(Text(item, depth + 1));
    return absl::StrCat(open, absl::StrJoin(texts, ", "), close);
  }

  std::string DictText(NodeId node, int depth) const {
    const auto& pairs = tree_.pairs(node);
    if (pairs.empty()) return "{}";
    const bool plain = std::all_of(pairs.begin(), pairs.end(), [this](const auto& pair) {
      return IsPlainValue(tree_, pair.second);
    });
    std::vector<std::string> keys;
    if (plain && pairs.size() <= kMaxItems && depth < kMaxDepth) {
      for (const auto& [key, value] : pairs) {
        keys.push_back(
            absl::StrCat(Escape(KeyText(tree_, key), kMaxTextBytes), ": ", Text(value, depth + 1)));
      }
      return absl::StrCat("{", absl::StrJoin(keys, ", "), "}");
    }
    for (const auto& [key, value] : pairs) {
      if (keys.size() == kMaxKeys) {
        keys.emplace_back("...");
        break;
      }
      keys.push_back(Escape(KeyText(tree_, key), kMaxTextBytes));
    }
    return absl::StrCat("dict of ", Grouped(pairs.size()), ": ", absl::StrJoin(keys, ", "));
  }

  const Checkpoint& checkpoint_;
  const Tree& tree_;
};

}  // namespace

bool IsPlainValue(const Tree& tree, NodeId node) {
  switch (tree.kind(node)) {
    case NodeKind::kNone:
    case NodeKind::kBool:
    case NodeKind::kInt:
    case NodeKind::kFloat:
    case NodeKind::kString:
    case NodeKind::kNumpyScalar:
      return true;
    default:
      return IsScalarTensor(tree, node);
  }
}

std::string ValueText(const Checkpoint& checkpoint, NodeId node) {
  return Describer(checkpoint).Text(node, 0);
}

Json ValueJson(const Checkpoint& checkpoint, NodeId node) {
  return Describer(checkpoint).ToJson(node, 0);
}

std::string KeyText(const Tree& tree, NodeId key) {
  if (tree.Is(key, NodeKind::kString)) return std::string(tree.text(key));
  if (tree.Is(key, NodeKind::kInt)) return absl::StrCat(tree.integer(key));
  return absl::StrCat("<", std::string(Name(tree.kind(key))), ">");
}

std::string FloatText(double value) { return ShortestText(value); }

std::string Grouped(std::uint64_t number) {
  const std::string digits = absl::StrCat(number);
  std::string grouped;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) grouped += ',';
    grouped += digits[i];
  }
  return grouped;
}

}  // namespace relight::ctl
