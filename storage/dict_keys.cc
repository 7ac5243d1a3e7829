#include "storage/dict_keys.h"

#include <bit>
#include <cmath>
#include <random>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "xxhash.h"

namespace relight::storage {
namespace {

// More tuples in one key than any honest key has: the memo can make one of 2^200.
constexpr std::size_t kMaxKeyParts = 4096;
// Hashing a longer key is work that the memo can ask for again and again.
constexpr std::size_t kFreeKeyBytes = 512;

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

std::string ShowKey(const Tree& tree, NodeId key) {
  switch (tree.kind(key)) {
    case NodeKind::kString:
      return absl::StrCat("'", Escape(tree.text(key)), "'");
    case NodeKind::kInt:
      return absl::StrCat(tree.integer(key));
    default:
      return absl::StrCat("of type ", std::string(Name(tree.kind(key))));
  }
}

}  // namespace

DictKeys::DictKeys(ParseContext& context) : context_(context) {
  std::random_device random;
  seed_ = (std::uint64_t{random()} << 32) | random();
}

absl::Status DictKeys::Insert(NodeId dict, NodeId key) {
  RELIGHT_RETURN_IF_ERROR(Canonicalise(key));
  AppendTagged('@', BytesOf(dict));
  const XXH128_hash_t hash = XXH3_128bits_withSeed(canonical_.data(), canonical_.size(), seed_);
  if (seen_.insert({hash.low64, hash.high64}).second) return absl::OkStatus();
  return context_.Error(ErrorCode::kPickleDuplicateKey,
                        absl::StrCat("sets the key ", ShowKey(context_.tree(), key), " twice"));
}

absl::Status DictKeys::CheckHashable(NodeId key) { return Canonicalise(key); }

absl::Status DictKeys::Canonicalise(NodeId key) {
  const Tree& tree = context_.tree();
  canonical_.clear();
  std::vector<NodeId> todo = {key};
  std::size_t parts = 0;
  while (!todo.empty()) {
    const NodeId node = todo.back();
    todo.pop_back();
    if (++parts > kMaxKeyParts) {
      return context_.Error(
          ErrorCode::kLimitExceeded,
          absl::StrCat("uses a tuple of more than ", kMaxKeyParts, " values as a key"));
    }
    if (tree.Is(node, NodeKind::kNumpyScalar)) {
      todo.push_back(tree.items(node)[0]);  // np.int64(1) is the key 1.
      continue;
    }
    if (!tree.Is(node, NodeKind::kTuple) && !tree.Is(node, NodeKind::kSize)) {
      RELIGHT_RETURN_IF_ERROR(AppendLeaf(node));
      continue;
    }
    const std::vector<NodeId>& items = tree.items(node);
    if (items.size() > kMaxKeyParts) {
      return context_.Error(ErrorCode::kLimitExceeded, "uses a huge tuple as a key");
    }
    AppendTagged('(', BytesOf(items.size()));
    todo.insert(todo.end(), items.rbegin(), items.rend());
  }
  return canonical_.size() > kFreeKeyBytes ? context_.Charge(canonical_.size()) : absl::OkStatus();
}

void DictKeys::AppendTagged(char tag, std::string_view bytes) {
  const std::uint64_t size = bytes.size();
  canonical_.push_back(tag);
  canonical_.append(BytesOf(size));
  canonical_.append(bytes);
}

// 1, 1.0 and True are one key.
void DictKeys::AppendNumber(NodeId key) {
  const Tree& tree = context_.tree();
  if (!tree.Is(key, NodeKind::kFloat)) {
    const std::int64_t value = tree.integer(key);
    AppendTagged('i', BytesOf(value));
    return;
  }
  const double value = tree.real(key);
  constexpr double kTwoTo63 = 9223372036854775808.0;
  if (std::isnan(value)) {
    AppendTagged('n', BytesOf(key));  // A NaN equals nothing but itself as an object.
  } else if (value >= -kTwoTo63 && value < kTwoTo63 && std::trunc(value) == value) {
    const auto integer = static_cast<std::int64_t>(value);
    AppendTagged('i', BytesOf(integer));
  } else {
    AppendTagged('f', BytesOf(value));
  }
}

absl::Status DictKeys::AppendLeaf(NodeId key) {
  const Tree& tree = context_.tree();
  switch (tree.kind(key)) {
    case NodeKind::kNone:
      AppendTagged('0', {});
      return absl::OkStatus();
    case NodeKind::kBool:
    case NodeKind::kInt:
    case NodeKind::kFloat:
      AppendNumber(key);
      return absl::OkStatus();
    case NodeKind::kComplex: {
      const std::pair<double, double> value = tree.complex(key);
      AppendTagged('c', BytesOf(value));
      return absl::OkStatus();
    }
    case NodeKind::kString:
      AppendTagged('s', tree.text(key));
      return absl::OkStatus();
    case NodeKind::kBytes:
      AppendTagged('b', tree.text(key));
      return absl::OkStatus();
    case NodeKind::kBigInt:
      AppendTagged('l', tree.text(key));
      return absl::OkStatus();
    case NodeKind::kSymbol:
    case NodeKind::kDevice:
    case NodeKind::kDType:
    case NodeKind::kLayout:
    case NodeKind::kQScheme:
      AppendTagged(static_cast<char>('A' + static_cast<int>(tree.kind(key))), tree.text(key));
      return absl::OkStatus();
    case NodeKind::kList:
    case NodeKind::kDict:
    case NodeKind::kOrderedDict:
    case NodeKind::kCounter:
    case NodeKind::kSet:
    case NodeKind::kByteArray:
    case NodeKind::kNumpyArray:
      return context_.Error(ErrorCode::kPickleBadValue,
                            absl::StrCat("uses a ", std::string(Name(tree.kind(key))),
                                         " as a key, which has no hash"));
    default:
      AppendTagged('#', BytesOf(key));  // By identity.
      return absl::OkStatus();
  }
}

}  // namespace relight::storage
