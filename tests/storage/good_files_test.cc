// Every file under tests/data/good gives the values of expected.json.
#include <openssl/evp.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "tests/storage/fixtures.h"

namespace relight::storage {
namespace {

using Json = nlohmann::ordered_json;

std::string Sha256(std::string_view bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  return absl::BytesToHexString(std::string(reinterpret_cast<char*>(digest), size));
}

std::string Decimal(std::string_view little_endian) {
  // Long division of the magnitude, for integers wider than 64 bits.
  std::vector<std::uint8_t> bytes(little_endian.begin(), little_endian.end());
  const bool negative = (bytes.back() & 0x80) != 0;
  if (negative) {
    int carry = 1;
    for (std::uint8_t& byte : bytes) {
      const int value = static_cast<std::uint8_t>(~byte) + carry;
      byte = static_cast<std::uint8_t>(value);
      carry = value >> 8;
    }
  }
  std::string digits;
  while (!bytes.empty()) {
    int rest = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) {
      const int value = rest * 256 + bytes[i];
      bytes[i] = static_cast<std::uint8_t>(value / 10);
      rest = value % 10;
    }
    digits.insert(digits.begin(), static_cast<char>('0' + rest));
    while (!bytes.empty() && bytes.back() == 0) bytes.pop_back();
  }
  return negative ? "-" + digits : digits;
}

// How expected.json spells a key in a pointer or list of keys.
std::string KeyName(const Tree& tree, NodeId key) {
  switch (tree.kind(key)) {
    case NodeKind::kString:
      return std::string(tree.text(key));
    case NodeKind::kInt:
      return absl::StrCat("#", tree.integer(key));
    case NodeKind::kBool:
      return tree.boolean(key) ? "True" : "False";
    case NodeKind::kNone:
      return "None";
    case NodeKind::kFloat:
      return absl::StrCat(tree.real(key));
    case NodeKind::kTuple: {
      std::string text;
      for (const NodeId item : tree.items(key)) {
        absl::StrAppend(&text, text.empty() ? "" : ", ", "'", KeyName(tree, item), "'");
      }
      return absl::StrCat("(", text, ")");
    }
    default:
      return "?";
  }
}

std::vector<std::string> KeyNames(const Tree& tree, NodeId dict) {
  std::vector<std::string> names;
  for (const auto& [key, value] : tree.pairs(dict)) names.push_back(KeyName(tree, key));
  return names;
}

// Writes the elements in row-major order, one by one: slow, and independent of the code under test.
std::string DenseBytes(const Checkpoint& checkpoint, const TensorInfo& info) {
  std::uint64_t count = 1;
  for (const std::int64_t size : info.shape) count *= static_cast<std::uint64_t>(size);
  std::string result;
  if (count == 0) return result;
  std::vector<std::byte> storage(checkpoint.storages()[info.storage].size_bytes);
  const absl::Status read = checkpoint.ReadStorage(info.storage, absl::MakeSpan(storage));
  EXPECT_TRUE(read.ok()) << read;
  const std::size_t item = ItemSize(info.dtype);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t rest = i;
    std::int64_t at = info.offset_elements;
    for (std::size_t d = info.shape.size(); d-- > 0;) {
      const auto size = static_cast<std::uint64_t>(info.shape[d]);
      at += static_cast<std::int64_t>(rest % size) * info.stride[d];
      rest /= size;
    }
    std::string element(
        reinterpret_cast<const char*>(&storage[static_cast<std::size_t>(at) * item]), item);
    const auto flip = [&](std::size_t byte) {
      element[byte] = static_cast<char>(element[byte] ^ 0x80);
    };
    if (info.neg) flip(item - 1);
    if (IsComplex(info.dtype) && info.neg) flip(item / 2 - 1);
    if (info.conj) flip(item - 1);
    if (info.dtype == DType::kBool) element[0] = element[0] != 0;
    result += element;
  }
  return result;
}

class GoodFile : public testing::TestWithParam<std::string> {
 protected:
  const Json& Expected() const { return ExpectedFixtures().at("good").at(GetParam()); }
  bool IsTorchScript() const { return Expected().value("container", "") == "torchscript"; }

  void Open() {
    absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath(GetParam()));
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_.emplace(*std::move(opened));
  }
  const Tree& tree() const { return checkpoint_->tree(); }

  // kNoNode where the pointer leads nowhere.
  NodeId Resolve(const std::string& pointer) {
    std::vector<std::string> steps = absl::StrSplit(pointer, '/');
    NodeId node = tree().root();
    for (std::size_t i = 1; i < steps.size(); ++i) {
      // Keys may hold slashes: the longest match wins.
      if (steps[i] == "@state_dict") {
        std::string key = steps[i + 1];
        for (std::size_t j = i + 2; j < steps.size(); ++j) key += "/" + steps[j];
        return ModuleEntry(key);
      }
      node = Step(node, steps[i]);
      if (node == kNoNode) return kNoNode;
    }
    return node;
  }

  NodeId ModuleEntry(const std::string& key) {
    const absl::StatusOr<StateDict> found = FindStateDict(*checkpoint_);
    EXPECT_TRUE(found.ok()) << found.status();
    for (const StateDictEntry& entry : found->entries) {
      if (entry.original_key == key) return entry.node;
    }
    return kNoNode;
  }

  NodeId Step(NodeId node, const std::string& step) const {
    if (step.starts_with("@")) {
      return tree().attributes(node) == kNoNode
                 ? kNoNode
                 : tree().Find(tree().attributes(node), step.substr(1));
    }
    if (tree().IsDict(node)) {
      for (const auto& [key, value] : tree().pairs(node)) {
        if (KeyName(tree(), key) == step) return value;
      }
      return kNoNode;
    }
    const std::size_t index = static_cast<std::size_t>(std::atoi(step.c_str()));
    return index < tree().items(node).size() ? tree().items(node)[index] : kNoNode;
  }

  void CheckContainer(NodeId node, const Json& expected) {
    const std::string kind = expected.at("kind");
    if (kind == "module") {
      const absl::StatusOr<StateDict> found = FindStateDict(*checkpoint_);
      ASSERT_TRUE(found.ok()) << found.status();
      std::vector<std::string> keys;
      for (const StateDictEntry& entry : found->entries) keys.push_back(entry.original_key);
      EXPECT_EQ(keys, expected.at("state_dict_keys").get<std::vector<std::string>>());
      EXPECT_EQ(found->module_class, expected.at("class").get<std::string>());
      EXPECT_TRUE(found->from_module);
      return;
    }
    EXPECT_EQ(Name(tree().kind(node)), kind == "defaultdict" ? "dict" : kind);
    if (expected.contains("keys")) {
      ASSERT_TRUE(tree().IsDict(node));
      EXPECT_EQ(KeyNames(tree(), node), expected.at("keys").get<std::vector<std::string>>());
    } else {
      EXPECT_EQ(tree().items(node).size(), expected.at("len").get<std::size_t>());
    }
  }

  void CheckTensor(NodeId node, const Json& expected, bool detached) {
    ASSERT_EQ(Name(tree().kind(node)), "tensor");
    const TensorInfo& info = tree().tensor(node);
    EXPECT_EQ(Name(info.dtype), expected.at("dtype").get<std::string>());
    EXPECT_EQ(info.shape, expected.at("shape").get<std::vector<std::int64_t>>());
    EXPECT_EQ(Sha256(DenseBytes(*checkpoint_, info)), expected.at("sha256").get<std::string>());
    if (expected.contains("parameter") && !detached) {
      EXPECT_EQ(info.is_parameter, expected.at("parameter").get<bool>());
    }
    if (!expected.contains("stride")) return;
    EXPECT_EQ(info.stride, expected.at("stride").get<std::vector<std::int64_t>>());
    EXPECT_EQ(info.offset_elements, expected.at("offset").get<std::int64_t>());
    if (!detached) {
      EXPECT_EQ(info.requires_grad, expected.at("requires_grad").get<bool>());
    }
    const int storage = expected.at("storage");
    const auto [known, is_new] = storage_of_.emplace(storage, info.storage);
    EXPECT_EQ(known->second, info.storage) << "should share a storage";
    if (is_new) {
      EXPECT_TRUE(taken_.emplace(info.storage, storage).second) << "should not share";
    }
  }

  void CheckFloat(NodeId node, const Json& expected) const {
    ASSERT_TRUE(tree().Is(node, NodeKind::kFloat));
    const std::string hex = expected.at("hex");
    const double value = std::strtod(hex.c_str(), nullptr);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(tree().real(node)));
    } else {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(tree().real(node)),
                std::bit_cast<std::uint64_t>(value));
    }
  }

  void CheckNumpyScalar(NodeId node, const Json& value) const {
    ASSERT_TRUE(tree().Is(node, NodeKind::kNumpyScalar));
    const NodeId inner = tree().items(node)[0];
    if (value.is_boolean()) {
      ASSERT_TRUE(tree().Is(inner, NodeKind::kBool));
      EXPECT_EQ(tree().boolean(inner), value.get<bool>());
    } else if (value.is_number_integer()) {
      ASSERT_TRUE(tree().Is(inner, NodeKind::kInt));
      EXPECT_EQ(tree().integer(inner), value.get<std::int64_t>());
    } else {
      ASSERT_TRUE(tree().Is(inner, NodeKind::kFloat));
      EXPECT_EQ(tree().real(inner), value.get<double>());
    }
  }

  void CheckLeaf(NodeId node, const Json& expected, bool detached) {
    const std::string kind = expected.at("kind");
    if (kind == "opaque") return;  // Only has to be there.
    if (kind == "tensor") return CheckTensor(node, expected, detached);
    if (kind == "float") return CheckFloat(node, expected);
    if (kind == "numpy_scalar") return CheckNumpyScalar(node, expected.at("value"));
    if (kind == "none") {
      EXPECT_TRUE(tree().Is(node, NodeKind::kNone));
    } else if (kind == "bool") {
      ASSERT_TRUE(tree().Is(node, NodeKind::kBool));
      EXPECT_EQ(tree().boolean(node), expected.at("value").get<bool>());
    } else if (kind == "int") {
      const std::string text = tree().Is(node, NodeKind::kBigInt)
                                   ? Decimal(tree().text(node))
                                   : absl::StrCat(tree().integer(node));
      EXPECT_EQ(Name(tree().kind(node)), "int");
      EXPECT_EQ(text, expected.at("value").get<std::string>());
    } else if (kind == "str") {
      ASSERT_TRUE(tree().Is(node, NodeKind::kString));
      EXPECT_EQ(tree().text(node), expected.at("value").get<std::string>());
    } else if (kind == "bytes" || kind == "bytearray") {
      ASSERT_EQ(Name(tree().kind(node)), kind);
      EXPECT_EQ(absl::BytesToHexString(std::string(tree().text(node))),
                expected.at("hex").get<std::string>());
    } else if (kind == "complex") {
      ASSERT_TRUE(tree().Is(node, NodeKind::kComplex));
      EXPECT_EQ(tree().complex(node).first, expected.at("value")[0].get<double>());
      EXPECT_EQ(tree().complex(node).second, expected.at("value")[1].get<double>());
    } else if (kind == "torch.Size") {
      std::vector<std::int64_t> sizes;
      for (const NodeId item : tree().items(node)) sizes.push_back(tree().integer(item));
      EXPECT_EQ(sizes, expected.at("value").get<std::vector<std::int64_t>>());
    } else if (kind == "torch.device" || kind == "torch.dtype") {
      ASSERT_EQ(Name(tree().kind(node)), kind);
      EXPECT_EQ(tree().text(node), expected.at("value").get<std::string>());
    } else if (kind == "numpy_array") {
      if (expected.at("dtype").get<std::string>().starts_with("<U")) return;  // Stays opaque.
      ASSERT_TRUE(tree().Is(node, NodeKind::kNumpyArray));
      const NumpyArrayInfo& array = tree().array(node);
      EXPECT_EQ(array.dtype, expected.at("dtype").get<std::string>().substr(1));
      EXPECT_EQ(array.shape, expected.at("shape").get<std::vector<std::int64_t>>());
      EXPECT_EQ(Sha256(array.bytes), expected.at("sha256").get<std::string>());
    } else if (kind == "unsupported_tensor") {
      ASSERT_TRUE(tree().Is(node, NodeKind::kUnsupportedTensor));
      EXPECT_EQ(tree().text(node), expected.at("layout").get<std::string>());
      EXPECT_EQ(Name(tree().tensor(node).dtype), expected.at("dtype").get<std::string>());
      EXPECT_EQ(tree().tensor(node).shape, expected.at("shape").get<std::vector<std::int64_t>>());
    } else {
      FAIL() << "expected.json has a kind that this test does not know: " << kind;
    }
  }

  std::optional<Checkpoint> checkpoint_;
  std::map<int, std::uint32_t> storage_of_;
  std::map<std::uint32_t, int> taken_;
};

TEST_P(GoodFile, HasTheExpectedValues) {
  if (IsTorchScript()) {
    const absl::Status status = Checkpoint::Open(DataPath(GetParam())).status();
    EXPECT_EQ(GetErrorCode(status), ErrorCode::kTorchScriptArchive) << status;
    return;
  }
  ASSERT_NO_FATAL_FAILURE(Open());
  const Json& expected = Expected();
  std::size_t checked = 0;
  // Named, because items() refers to it.
  const Json containers = expected.value("containers", Json::object());
  for (const auto& item : containers.items()) {
    SCOPED_TRACE(absl::StrCat("container '", item.key(), "'"));
    const NodeId node = Resolve(item.key());
    ASSERT_NE(node, kNoNode);
    CheckContainer(node, item.value());
    ++checked;
  }
  const Json leaves = expected.value("leaves", Json::object());
  for (const auto& item : leaves.items()) {
    SCOPED_TRACE(absl::StrCat("leaf '", item.key(), "'"));
    const NodeId node = Resolve(item.key());
    ASSERT_NE(node, kNoNode);
    CheckLeaf(node, item.value(), item.key().find("@state_dict") != std::string::npos);
    ++checked;
  }
  EXPECT_TRUE(checked > 0 || expected.contains("weight_map") || expected.contains("rule"));
}

TEST_P(GoodFile, HasItsStateDictWhereExpected) {
  if (!Expected().contains("state_dict_at") || Expected().at("state_dict_at").is_null()) return;
  ASSERT_NO_FATAL_FAILURE(Open());
  const absl::StatusOr<StateDict> found = FindStateDict(*checkpoint_);
  ASSERT_TRUE(found.ok()) << found.status();
  const std::string expected = Expected().at("state_dict_at");
  EXPECT_EQ(found->location + (found->from_module ? "/@state_dict" : ""), expected);
}

// Whatever can be served is served as its elements in row-major order say.
TEST_P(GoodFile, LoadsTheWeightsThatItsStateDictHolds) {
  if (IsTorchScript()) return;
  ASSERT_NO_FATAL_FAILURE(Open());
  absl::StatusOr<StateDict> found = FindStateDict(*checkpoint_);
  if (!found.ok()) {
    EXPECT_EQ(GetErrorCode(found.status()), ErrorCode::kNoStateDict) << found.status();
    EXPECT_TRUE(!Expected().contains("state_dict_at") || Expected().at("state_dict_at").is_null());
    return;
  }
  const absl::StatusOr<WeightPlan> plan = PlanWeights(*checkpoint_, *found, {});
  if (!plan.ok()) {
    const std::optional<ErrorCode> code = GetErrorCode(plan.status());
    EXPECT_TRUE(code == ErrorCode::kUnsupportedDType || code == ErrorCode::kUnsupportedLayout)
        << plan.status();
    return;
  }
  EXPECT_EQ(plan->tensors.size(), found->entries.size());
  std::vector<std::byte> memory(plan->total_bytes + kWeightAlignment);
  const std::size_t skip =
      (kWeightAlignment - reinterpret_cast<std::uintptr_t>(memory.data()) % kWeightAlignment) %
      kWeightAlignment;
  const absl::Span<std::byte> block(memory.data() + skip, plan->total_bytes);
  const absl::StatusOr<ExaminedWeights> loaded = LoadWeights(*checkpoint_, *plan, block);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  for (const WeightTensor& tensor : plan->tensors) {
    SCOPED_TRACE(tensor.key);
    TensorInfo view;
    view.dtype = tensor.dtype;
    view.shape = tensor.shape;
    std::string dense;
    std::uint64_t count = 1;
    for (const std::int64_t size : tensor.shape) count *= static_cast<std::uint64_t>(size);
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t rest = i;
      std::uint64_t at = tensor.offset_bytes;
      for (std::size_t d = tensor.shape.size(); d-- > 0;) {
        const auto size = static_cast<std::uint64_t>(tensor.shape[d]);
        at += rest % size * static_cast<std::uint64_t>(tensor.stride[d]) * ItemSize(tensor.dtype);
        rest /= size;
      }
      ASSERT_LE(at + ItemSize(tensor.dtype), block.size());
      dense.append(reinterpret_cast<const char*>(&block[at]), ItemSize(tensor.dtype));
    }
    EXPECT_EQ(dense, DenseBytes(*checkpoint_, checkpoint_->tree().tensor(tensor.node)));
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoodFile, testing::ValuesIn(FixtureNames("good")),
                         [](const auto& tested) { return TestNameOf(tested.param); });

TEST(GoodFiles, ManyKeysFollowTheirRule) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/many_keys.pt"));
  ASSERT_TRUE(opened.ok()) << opened.status();
  const Tree& tree = opened->tree();
  const auto& ints = tree.pairs(tree.Find(tree.root(), "ints"));
  ASSERT_EQ(ints.size(), 1500u);
  for (std::size_t i = 0; i < ints.size(); ++i) {
    EXPECT_EQ(tree.integer(ints[i].second), static_cast<std::int64_t>(i * i));
  }
  const auto& list = tree.items(tree.Find(tree.root(), "list"));
  ASSERT_EQ(list.size(), 2500u);
  EXPECT_EQ(tree.integer(list[2499]), 2499);
  EXPECT_EQ(tree.text(tree.items(tree.Find(tree.root(), "strs"))[399]), "s399");
}

TEST(GoodFiles, ShardsAreOneStateDictInTheOrderOfTheIndex) {
  const std::map<std::string, std::vector<std::string>> shards_of = {
      {"good/hf_sharded/pytorch_model.bin.index.json",
       {"good/hf_sharded/pytorch_model-00001-of-00002.bin",
        "good/hf_sharded/pytorch_model-00002-of-00002.bin"}},
      {"good/st_sharded/model.safetensors.index.json",
       {"good/st_sharded/model-00001-of-00002.safetensors",
        "good/st_sharded/model-00002-of-00002.safetensors"}}};
  for (const auto& [index, shards] : shards_of) {
    SCOPED_TRACE(index);
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath(index));
    ASSERT_TRUE(opened.ok()) << opened.status();
    EXPECT_EQ(opened->summary().format, Format::kShardedIndex);
    const absl::StatusOr<StateDict> found = FindStateDict(*opened);
    ASSERT_TRUE(found.ok()) << found.status();
    std::vector<std::string> keys;
    for (const StateDictEntry& entry : found->entries) keys.push_back(entry.key);
    EXPECT_EQ(keys, (std::vector<std::string>{"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}));
    std::size_t compared = 0;
    for (const std::string& name : shards) {
      const absl::StatusOr<Checkpoint> shard = Checkpoint::Open(DataPath(name));
      ASSERT_TRUE(shard.ok()) << shard.status();
      for (const StateDictEntry& entry : found->entries) {
        const NodeId same = shard->tree().Find(shard->tree().root(), entry.key);
        if (same == kNoNode) continue;
        EXPECT_EQ(DenseBytes(*opened, opened->tree().tensor(entry.node)),
                  DenseBytes(*shard, shard->tree().tensor(same)));
        ++compared;
      }
    }
    EXPECT_EQ(compared, 4u);
  }
}

}  // namespace
}  // namespace relight::storage
