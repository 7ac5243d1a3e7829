#include "storage/pickle_machine.h"

#include <memory>
#include <string>
#include <string_view>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/bytes.h"
#include "storage/error.h"
#include "storage/object_factory.h"
#include "storage/tree_audit.h"

namespace relight::storage {
namespace {

using std::string_literals::operator""s;
using ::testing::HasSubstr;

// Storages of any key, as long as they claim to be.
class AnyStorage final : public StorageLocator {
 public:
  absl::Status Locate(const ParseContext&, StorageInfo&) const override { return absl::OkStatus(); }
};

class PickleMachineTest : public testing::Test {
 protected:
  enum class Mode { kFull, kPlain };

  absl::Status Run(const std::string& pickle, Mode mode = Mode::kFull) {
    tree_ = Tree();
    ParseContext context(tree_, options_, "test.pt: data.pkl", pickle.size());
    DictKeys keys(context);
    const AnyStorage locator;
    TorchObjectFactory factory(context, keys, locator, StorageTable::Ids::kZip, false);
    PickleMachine machine(context, keys, mode == Mode::kFull ? &factory : nullptr);
    const absl::StatusOr<PickleMachine::Result> result = machine.Run(AsBytes(pickle), 0);
    ran_out_ = machine.ran_out();
    if (!result.ok()) return result.status();
    tree_.set_root(result->root);
    return AuditTree(tree_, options_.limits, "test.pt");
  }
  std::optional<ErrorCode> CodeOf(const std::string& body, Mode mode = Mode::kFull) {
    return GetErrorCode(Run("\x80\x02" + body, mode));
  }
  NodeId root() const { return tree_.root(); }

  ReadOptions options_;
  Tree tree_;
  bool ran_out_ = false;
};

TEST_F(PickleMachineTest, IntegersOfEveryWidthAreSigned) {
  const std::vector<std::pair<std::string, std::int64_t>> cases = {
      {"K\xFF."s, 255},
      {"M\xFF\xFF."s, 65535},
      {"J\xFF\xFF\xFF\xFF."s, -1},
      {"\x8A\x00."s, 0},
      {"\x8A\x01\xFF."s, -1},
      {"\x8A\x02\xFF\x00."s, 255},
      {"\x8A\x08\x00\x00\x00\x00\x00\x00\x00\x80."s, INT64_MIN},
      {"\x8A\x0A\xFE\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF."s, -2},
  };
  for (const auto& [body, value] : cases) {
    ASSERT_TRUE(Run("\x80\x02" + body).ok());
    ASSERT_TRUE(tree_.Is(root(), NodeKind::kInt));
    EXPECT_EQ(tree_.integer(root()), value);
  }
}

TEST_F(PickleMachineTest, WiderIntegersKeepTheirBytes) {
  ASSERT_TRUE(Run("\x80\x02\x8A\x09\x00\x00\x00\x00\x00\x00\x00\x80\x00."s).ok());
  EXPECT_EQ(tree_.kind(root()), NodeKind::kBigInt);
  EXPECT_EQ(tree_.text(root()).size(), 9u);
}

TEST_F(PickleMachineTest, TextMayHoldLoneSurrogatesButNothingElseThatIsNotUtf8) {
  EXPECT_TRUE(Run("\x80\x02X\x05\x00\x00\x00"
                  "a\xED\xA0\x80z."s)
                  .ok());
  EXPECT_TRUE(Run("\x80\x02X\x03\x00\x00\x00\xED\x9F\xBF."s).ok());
  EXPECT_EQ(CodeOf("X\x03\x00\x00\x00\xED\xA0\x20."s), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("X\x02\x00\x00\x00\xED\xA0."s), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("X\x01\x00\x00\x00\xFF."s), ErrorCode::kPickleBadValue);
}

TEST_F(PickleMachineTest, KeysCompareAsInPython) {
  EXPECT_EQ(CodeOf("}(K\x01NG\x3F\xF0\x00\x00\x00\x00\x00\x00Nu."s),
            ErrorCode::kPickleDuplicateKey);
  EXPECT_EQ(CodeOf("}(K\x01N\x88Nu."s), ErrorCode::kPickleDuplicateKey);
  EXPECT_EQ(CodeOf("}(K\x01K\x02\x86NK\x01K\x02\x86Nu."s), ErrorCode::kPickleDuplicateKey);
  EXPECT_EQ(CodeOf("}(K\x01NX\x01\x00\x00\x00"
                   "1Nu."s),
            std::nullopt);
  EXPECT_EQ(CodeOf("}(K\x01NK\x02Nu."s), std::nullopt);
}

TEST_F(PickleMachineTest, ANumpyScalarIsTheKeyThatItsValueIs) {
  const std::string dtype = "cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R"s;
  const std::string one =
      "cnumpy.core.multiarray\nscalar\n" + dtype + "C\x08\x01\x00\x00\x00\x00\x00\x00\x00\x86R"s;
  EXPECT_EQ(CodeOf("}(" + one + "NK\x01Nu."s), ErrorCode::kPickleDuplicateKey);
  EXPECT_EQ(CodeOf("}(" + one + "N" + one + "Nu."s), ErrorCode::kPickleDuplicateKey);
  EXPECT_EQ(CodeOf("}(" + one + "NK\x02Nu."s), std::nullopt);
}

TEST_F(PickleMachineTest, TheSameKeyMayBeInTwoDicts) {
  EXPECT_TRUE(Run("\x80\x02]}(K\x01Nua}(K\x01Nua."s).ok());
}

TEST_F(PickleMachineTest, ATupleWithAListInItIsNoKey) {
  EXPECT_EQ(CodeOf("}]\x85Ns."s), ErrorCode::kPickleBadValue);
}

TEST_F(PickleMachineTest, AKeyThatUnfoldsWithoutEndIsRefused) {
  std::string body = "}K\x01";
  for (int i = 0; i < 40; ++i) body += "2\x86";  // DUP TUPLE2
  EXPECT_EQ(CodeOf(body + "Ns."), ErrorCode::kLimitExceeded);
}

TEST_F(PickleMachineTest, NothingBelowAMarkIsInReach) {
  EXPECT_EQ(CodeOf("K\x01(0t."s), ErrorCode::kPickleBadStack);
  EXPECT_EQ(CodeOf("K\x01K\x02(\x86."s), ErrorCode::kPickleBadStack);
  EXPECT_EQ(CodeOf("(u."s), ErrorCode::kPickleBadStack);
}

TEST_F(PickleMachineTest, PlainModeTakesNoNamesAndNoCalls) {
  EXPECT_EQ(CodeOf("](K\x01K\x02"
                   "e."s,
                   Mode::kPlain),
            std::nullopt);
  EXPECT_EQ(CodeOf("ccollections\nOrderedDict\n."s, Mode::kPlain), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("K\x01)R."s, Mode::kPlain), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("K\x01)\x81."s, Mode::kPlain), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("K\x01K\x01"
                   "b."s,
                   Mode::kPlain),
            ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("K\x01Q."s, Mode::kPlain), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf("cos\nsystem\n."s, Mode::kPlain), ErrorCode::kUnsafeGlobal);
}

TEST_F(PickleMachineTest, ForbiddenNamesAreRefusedEvenIfNothingUsesThem) {
  EXPECT_EQ(CodeOf("cos\nsystem\n0N."s), ErrorCode::kUnsafeGlobal);
  EXPECT_EQ(CodeOf("cos.path\njoin\n0N."s), ErrorCode::kUnsafeGlobal);
  EXPECT_EQ(CodeOf("c__builtin__\neval\n0N."s), ErrorCode::kUnsafeGlobal);
  EXPECT_EQ(CodeOf("ctorch.hub\nload\n0N."s), ErrorCode::kUnsafeGlobal);
  // Not to be mistaken for them.
  EXPECT_EQ(CodeOf("cosmos\nsystem\n0N."s), std::nullopt);
  EXPECT_EQ(CodeOf("cbuiltins\ngetattr\n0N."s), std::nullopt);
}

TEST_F(PickleMachineTest, ADeviceIsAsLongAsOneTextMayBe) {
  const auto device = [](std::size_t name_bytes, const std::string& index) {
    return "ctorch\ndevice\nX"s + static_cast<char>(name_bytes) + "\x00\x00\x00"s +
           std::string(name_bytes, 'd') + index + "R."s;
  };
  EXPECT_EQ(CodeOf(device(64, "\x85"s)), std::nullopt);
  EXPECT_EQ(CodeOf(device(62, "K\x01\x86"s)), std::nullopt);
  EXPECT_EQ(CodeOf(device(65, "\x85"s)), ErrorCode::kPickleBadValue);
  EXPECT_EQ(CodeOf(device(63, "K\x01\x86"s)), ErrorCode::kPickleBadValue);
}

TEST_F(PickleMachineTest, ATruncatedPickleSaysThatMoreBytesMayHelp) {
  EXPECT_EQ(CodeOf("X\x05\x00\x00\x00"s), ErrorCode::kPickleTruncated);
  EXPECT_TRUE(ran_out_);
  EXPECT_EQ(CodeOf("K\x01"s), ErrorCode::kPickleTruncated);
  EXPECT_TRUE(ran_out_);
  EXPECT_EQ(CodeOf("I1\n."s), ErrorCode::kPickleBadOpcode);
  EXPECT_FALSE(ran_out_);
}

TEST_F(PickleMachineTest, CopiesThatTheMemoAsksForAgainAndAgainAreBounded) {
  // set(a list of 1000 ones), some ten thousand times over.
  std::string body =
      "c__builtin__\nset\nq\x01"
      "0](";
  for (int i = 0; i < 1000; ++i) body += "K\x01";
  body +=
      "eq\x02"
      "0";
  for (int i = 0; i < 10'000; ++i) body += "h\x01h\x02\x85R0";
  EXPECT_EQ(CodeOf(body + "N."), ErrorCode::kLimitExceeded);
}

TEST_F(PickleMachineTest, MessagesNameTheByte) {
  const absl::Status status = Run("\x80\x02K\x01h\x07."s);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("PICKLE_BAD_MEMO: test.pt: data.pkl: at byte 4: "));
}

TEST_F(PickleMachineTest, DeepNestingIsCountedNotRecursed) {
  std::string body;
  for (int i = 0; i < 200'000; ++i) body += "]";
  for (int i = 1; i < 200'000; ++i) body += "a";
  EXPECT_EQ(CodeOf(body + "."), ErrorCode::kLimitExceeded);
}

TEST_F(PickleMachineTest, ACycleIsNoErrorInItself) {
  EXPECT_TRUE(Run("\x80\x02]q\x00h\x00"
                  "a."s)
                  .ok());
  EXPECT_EQ(tree_.items(root()), std::vector<NodeId>{root()});
}

}  // namespace
}  // namespace relight::storage
