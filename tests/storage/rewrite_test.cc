// What the writer wrote is what the reader read: over all good fixtures.
#include <bit>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/checkpoint_source.h"
#include "storage/error.h"
#include "storage/lazy_tensor.h"
#include "storage/write_plan.h"
#include "storage/writer.h"
#include "tests/paths.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

constexpr char kGood[] = RELIGHT_TEST_DATA "/good/";

// Whole modules, which a snapshot replaces by their state dict, and archives of the C++ API.
const std::set<std::string>& NeverWritten() {
  static const std::set<std::string> names = {"conv_bn_entire.pth",      "cpp_adam.pt",
                                              "cpp_module.pt",           "cpp_tensor.pt",
                                              "entire_model.pth",        "entire_model_legacy.pth",
                                              "syn_entire_model_2_x.pt", "syn_opaque_reduce.pt",
                                              "tied_entire.pth",         "torchscript.pt"};
  return names;
}

std::vector<std::string> WrittenFiles() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(kGood)) {
    const std::string name = entry.path().filename();
    if (entry.is_regular_file() && NeverWritten().count(name) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<WriteReport> Rewrite(const Checkpoint& checkpoint, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  return WriteCheckpoint(checkpoint.tree(), checkpoint.tree().root(), CheckpointSource(checkpoint),
                         {}, [&](absl::Span<const std::byte> bytes) {
                           file.write(reinterpret_cast<const char*>(bytes.data()),
                                      static_cast<std::streamsize>(bytes.size()));
                           return absl::OkStatus();
                         });
}

// Compares what was written with what was read from it.
class TreeComparison {
 public:
  TreeComparison(const Checkpoint& before, const Checkpoint& after, const WritePlan& plan)
      : before_(before), after_(after), plan_(plan) {}

  void Compare(NodeId a, NodeId b, const std::string& path) {
    const Tree& x = before_.tree();
    const Tree& y = after_.tree();
    if (x.Is(a, NodeKind::kNumpyScalar)) return Compare(x.items(a)[0], b, path);
    ASSERT_EQ(Name(x.kind(a)), Name(y.kind(b))) << path;
    switch (x.kind(a)) {
      case NodeKind::kBool:
      case NodeKind::kInt:
        EXPECT_EQ(x.integer(a), y.integer(b)) << path;
        break;
      case NodeKind::kFloat:
        EXPECT_EQ(std::bit_cast<std::uint64_t>(x.real(a)), std::bit_cast<std::uint64_t>(y.real(b)))
            << path;
        break;
      case NodeKind::kBigInt:
      case NodeKind::kString:
      case NodeKind::kBytes:
      case NodeKind::kDevice:
      case NodeKind::kDType:
        EXPECT_EQ(x.text(a), y.text(b)) << path;
        break;
      case NodeKind::kTensor:
        CompareTensors(x.tensor(a), y.tensor(b), path);
        break;
      case NodeKind::kStorage:
        CompareStorages(x.storage(a), y.storage(b), path);
        break;
      case NodeKind::kNone:
        break;
      default:
        CompareContainers(a, b, path);
    }
  }

 private:
  void CompareContainers(NodeId a, NodeId b, const std::string& path) {
    const Tree& x = before_.tree();
    const Tree& y = after_.tree();
    if (!x.IsDict(a)) {
      ASSERT_EQ(x.items(a).size(), y.items(b).size()) << path;
      for (std::size_t i = 0; i < x.items(a).size(); ++i) {
        Compare(x.items(a)[i], y.items(b)[i], path + "/" + std::to_string(i));
      }
      return;
    }
    std::size_t next = 0;
    for (const auto& [key, value] : x.pairs(a)) {
      if (!plan_.CanWrite(key) || !plan_.CanWrite(value)) continue;
      ASSERT_LT(next, y.pairs(b).size()) << path;
      Compare(key, y.pairs(b)[next].first, path + "/key " + std::to_string(next));
      Compare(value, y.pairs(b)[next].second, path + "/value " + std::to_string(next));
      ++next;
    }
    EXPECT_EQ(next, y.pairs(b).size()) << path;
    if (!x.Is(a, NodeKind::kOrderedDict)) return;
    ASSERT_EQ(x.attributes(a) == kNoNode, y.attributes(b) == kNoNode) << path;
    if (x.attributes(a) != kNoNode) Compare(x.attributes(a), y.attributes(b), path + "/@");
  }

  void CompareTensors(const TensorInfo& a, const TensorInfo& b, const std::string& path) {
    EXPECT_EQ(Name(a.dtype), Name(b.dtype)) << path;
    EXPECT_EQ(a.shape, b.shape) << path;
    EXPECT_EQ(a.requires_grad, b.requires_grad) << path;
    EXPECT_EQ(a.is_parameter, b.is_parameter) << path;
    EXPECT_FALSE(IsLazy(b)) << path;
    const auto before = ResolveTensor(a, CheckpointSource(before_));
    const auto after = ResolveTensor(b, CheckpointSource(after_));
    ASSERT_TRUE(before.ok() && after.ok()) << before.status() << after.status();
    EXPECT_TRUE(*before == *after) << path;
    if (IsLazy(a)) return;
    EXPECT_EQ(a.stride, b.stride) << path;
    CompareStorages(a.storage, b.storage, path);
  }

  // Equal storages before are equal storages afterwards, and no others are.
  void CompareStorages(std::uint32_t a, std::uint32_t b, const std::string& path) {
    EXPECT_EQ(to_after_.emplace(a, b).first->second, b) << path;
    EXPECT_EQ(to_before_.emplace(b, a).first->second, a) << path;
  }

  const Checkpoint& before_;
  const Checkpoint& after_;
  const WritePlan& plan_;
  std::map<std::uint32_t, std::uint32_t> to_after_;
  std::map<std::uint32_t, std::uint32_t> to_before_;
};

class RewriteTest : public ::testing::TestWithParam<std::string> {};

TEST_P(RewriteTest, GivesTheSameTreeAndThenTheSameFile) {
  const auto before = Checkpoint::Open(kGood + GetParam());
  ASSERT_TRUE(before.ok()) << before.status();
  const auto plan = WritePlan::Make(before->tree(), before->tree().root());
  ASSERT_TRUE(plan.ok()) << plan.status();
  TempFolder folder;
  const auto report = Rewrite(*before, folder.Path("once.pt"));
  ASSERT_TRUE(report.ok()) << report.status();
  const auto after = Checkpoint::Open(folder.Path("once.pt"));
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->summary().torch_version_guess, ">= 2.7");
  EXPECT_FALSE(after->summary().crc_absent);
  TreeComparison(*before, *after, *plan).Compare(before->tree().root(), after->tree().root(), "");

  const auto again = Rewrite(*after, folder.Path("twice.pt"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(again->left_out, ::testing::IsEmpty());
  EXPECT_THAT(again->converted, ::testing::IsEmpty());
  EXPECT_TRUE(folder.Read("once.pt") == folder.Read("twice.pt"));
  const auto predicted =
      PredictCheckpointBytes(before->tree(), before->tree().root(), CheckpointSource(*before));
  ASSERT_TRUE(predicted.ok());
  EXPECT_EQ(*predicted, folder.Read("once.pt").size());
}

INSTANTIATE_TEST_SUITE_P(Good, RewriteTest, ::testing::ValuesIn(WrittenFiles()),
                         [](const auto& file) {
                           std::string name = file.param;
                           for (char& c : name) {
                             if (c == '.') c = '_';
                           }
                           return name;
                         });

TEST(RewriteRefusalTest, WholeModulesCannotBeWrittenAsTheyAre) {
  for (const std::string& name : NeverWritten()) {
    const auto checkpoint = Checkpoint::Open(kGood + name);
    if (!checkpoint.ok()) {
      EXPECT_EQ(GetErrorCode(checkpoint.status()), ErrorCode::kTorchScriptArchive) << name;
      continue;
    }
    TempFolder folder;
    EXPECT_EQ(Rewrite(*checkpoint, folder.Path("x")).status().code(),
              absl::StatusCode::kInvalidArgument)
        << name;
    EXPECT_EQ(folder.Read("x"), "") << name;
  }
}

}  // namespace
}  // namespace relight::storage
