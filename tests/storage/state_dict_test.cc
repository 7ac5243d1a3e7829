#include "storage/state_dict.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/error.h"
#include "storage/state_dict_finder.h"
#include "tests/storage/fixtures.h"
#include "tests/storage/made_checkpoint.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class StateDictTest : public testing::Test {
 protected:
  absl::StatusOr<StateDict> Find(NodeId root, const StateDictOptions& options = {}) {
    const absl::StatusOr<Checkpoint> opened = made_.WriteAndOpen(root, folder_.Path("made.pt"));
    if (!opened.ok()) return opened.status();
    return FindStateDict(*opened, options);
  }
  NodeId Weights(const std::vector<std::string>& keys) {
    std::vector<std::pair<std::string, NodeId>> items;
    for (const std::string& key : keys) items.emplace_back(key, made_.AddFloats({1}));
    return made_.AddDict(items);
  }
  static std::vector<std::string> Keys(const StateDict& state_dict) {
    std::vector<std::string> keys;
    for (const StateDictEntry& entry : state_dict.entries) keys.push_back(entry.key);
    return keys;
  }
  std::vector<std::string> KeysFor(const std::vector<std::string>& keys,
                                   const std::vector<std::string>& wanted) {
    made_ = MadeCheckpoint();
    StateDictOptions options;
    options.wanted_keys = wanted;
    const absl::StatusOr<StateDict> found = Find(Weights(keys), options);
    EXPECT_TRUE(found.ok()) << found.status();
    return Keys(*found);
  }

  TempFolder folder_;
  MadeCheckpoint made_;
};

TEST_F(StateDictTest, PrefixesOfWrappersAreStripped) {
  for (const std::string file : {"good/ddp_prefixed.pth", "good/compiled_prefixed.pth"}) {
    const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath(file));
    ASSERT_TRUE(opened.ok()) << opened.status();
    const absl::StatusOr<StateDict> found = FindStateDict(*opened);
    ASSERT_TRUE(found.ok()) << found.status();
    EXPECT_THAT(Keys(*found), ElementsAre("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"));
    EXPECT_EQ(found->stripped_prefix + "fc1.weight", found->entries[0].original_key);
  }
}

TEST_F(StateDictTest, WrappersInTheMiddleAreDropped) {
  const absl::StatusOr<StateDict> found =
      Find(Weights({"net._orig_mod.w", "_fsdp_wrapped_module.net.b"}));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Keys(*found), ElementsAre("net.w", "net.b"));
}

TEST_F(StateDictTest, ModulePrefixStaysWhereSomeKeyLacksIt) {
  const absl::StatusOr<StateDict> found = Find(Weights({"module.w", "scale"}));
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(Keys(*found), ElementsAre("module.w", "scale"));
}

TEST_F(StateDictTest, PrefixesAreStrippedOnlyIfThatMakesMoreKeysMatch) {
  EXPECT_THAT(KeysFor({"module.w", "module.b"}, {"w", "b"}), ElementsAre("w", "b"));
  EXPECT_THAT(KeysFor({"module.w", "module.b"}, {"module.w", "module.b"}),
              ElementsAre("module.w", "module.b"));
  EXPECT_THAT(KeysFor({"model.w", "criterion.t"}, {"w"}), ElementsAre("w", "criterion.t"));
  EXPECT_THAT(KeysFor({"model.w"}, {"model.w"}), ElementsAre("model.w"));
  EXPECT_THAT(KeysFor({"model.w"}, {"other"}), ElementsAre("model.w"));
  EXPECT_THAT(KeysFor({"_orig_mod.module.model.w"}, {"w"}), ElementsAre("w"));
}

TEST_F(StateDictTest, LightningsPrefixStaysWithoutKnownKeys) {
  const absl::StatusOr<StateDict> found = Find(Weights({"model.w"}));
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(Keys(*found), ElementsAre("model.w"));
}

TEST_F(StateDictTest, AConfiguredPrefixMustBeOnEveryKey) {
  StateDictOptions options;
  options.strip_prefix = "net.";
  const absl::StatusOr<StateDict> found = Find(Weights({"net.w", "net.b"}), options);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Keys(*found), ElementsAre("w", "b"));
  EXPECT_EQ(found->stripped_prefix, "net.");
  const absl::Status status = Find(Weights({"net.w", "b"}), options).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("key b does not begin with the prefix net."));
}

TEST_F(StateDictTest, KeysThatCollideOnceStrippedAreAnError) {
  const absl::Status status = Find(Weights({"_orig_mod.w", "w"})).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kPickleDuplicateKey);
}

TEST_F(StateDictTest, AConfiguredKeyWins) {
  const NodeId root = made_.AddDict(
      {{"model", Weights({"a"})}, {"runs", made_.AddDict({{"best", Weights({"b"})}})}});
  StateDictOptions options;
  options.key = "runs/best";
  const absl::StatusOr<StateDict> found = Find(root, options);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->location, "/runs/best");
  EXPECT_THAT(Keys(*found), ElementsAre("b"));
  options.key = "runs/worst";
  const absl::Status status = Find(root, options).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kNoStateDict);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("there is no key worst at '/runs', where there is a dict with the keys "
                        "best (dict)"));
}

TEST_F(StateDictTest, AveragedWeightsComeLastAndOthersAreNamed) {
  const absl::StatusOr<StateDict> found =
      Find(made_.AddDict({{"ema", Weights({"a"})}, {"model", Weights({"b"})}}));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->location, "/model");
  EXPECT_THAT(found->other_locations, ElementsAre("/ema"));
}

TEST_F(StateDictTest, ABundleWinsOverTensorsBesideIt) {
  const absl::StatusOr<StateDict> found =
      Find(made_.AddDict({{"rng", made_.AddFloats({1})}, {"net", Weights({"w"})}}));
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->location, "/net");
}

TEST_F(StateDictTest, EntriesThatAreNoTensorsAreReported) {
  const NodeId dict =
      made_.AddDict({{"w", made_.AddFloats({1})}, {"fc._extra_state", made_.tree.AddInt(3)}});
  const absl::StatusOr<StateDict> found = Find(dict);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Keys(*found), ElementsAre("w"));
  EXPECT_THAT(found->other_keys, ElementsAre("fc._extra_state"));
}

TEST_F(StateDictTest, DictsThatManyKeysLeadToAreLookedAtOnce) {
  NodeId dict = Weights({"w"});
  for (int level = 0; level < 8; ++level) {
    std::vector<std::pair<std::string, NodeId>> items;
    for (const char* key :
         {"model_state_dict", "state_dict", "model", "module", "net", "network", "weights"}) {
      items.emplace_back(key, dict);
    }
    dict = made_.AddDict(items);
  }
  // 7^8 ways lead to the weights: a search that walks them all does not end in this test's time.
  made_.tree.set_root(dict);
  const absl::StatusOr<StateDict> found = FindStateDictInTree(made_.tree, "made.pt", {});
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(Keys(*found), ElementsAre("w"));
}

TEST_F(StateDictTest, AFileWithoutWeightsSaysWhatItHolds) {
  const NodeId root = made_.AddDict({{"epoch", made_.tree.AddInt(3)},
                                     {"history", made_.tree.Add(NodeKind::kList)},
                                     {"bad\nkey", made_.tree.Add(NodeKind::kNone)}});
  const absl::Status status = Find(root).status();
  EXPECT_EQ(GetErrorCode(status), ErrorCode::kNoStateDict);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("made.pt: no state dict was found in it but a dict with the keys epoch "
                        "(int), history (list), bad\\x0akey (None)"));
}

TEST_F(StateDictTest, AnUnknownObjectIsNamedByItsClass) {
  const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(DataPath("good/sched_onecycle.pth"));
  ASSERT_TRUE(opened.ok());
  StateDictOptions options;
  options.key = "lr_scheduler/anneal_func";
  const absl::Status status = FindStateDict(*opened, options).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("an object of builtins.getattr"));
}

}  // namespace
}  // namespace relight::storage
