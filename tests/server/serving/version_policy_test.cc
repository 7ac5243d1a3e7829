#include "server/serving/version_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/clock.h"
#include "server/serving/version_state.h"

namespace relight::serving {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Action = Decision::Action;

// A folder, a clock and a model that does at once what the policy says: each test is a short story.
class VersionPolicyTest : public ::testing::Test {
 protected:
  // A file that was written long ago under an inode of its own.
  void Put(const std::string& name, absl::Duration age = absl::Hours(1)) {
    storage::FolderEntry entry;
    entry.name = name;
    entry.stem = name.substr(0, name.rfind('.'));
    entry.candidate = true;
    entry.identity = {.device = 1,
                      .inode = next_inode_++,
                      .size_bytes = 100,
                      .modified = clock_.Now() - age,
                      .changed = clock_.Now() - age};
    folder_[name] = entry;
  }
  // Someone writes on into the file.
  void Grow(const std::string& name) {
    storage::FileIdentity& identity = folder_[name].identity;
    identity.size_bytes += 50;
    identity.modified = identity.changed = clock_.Now();
  }
  void Remove(const std::string& name) { folder_.erase(name); }

  void Scan() {
    std::vector<storage::FolderEntry> listing;
    for (const auto& [name, entry] : folder_) listing.push_back(entry);
    Observe(listing, clock_.Now(), settings_, memory_);
  }

  Decision Decide(std::optional<std::string> loading = std::nullopt) {
    Decision decision =
        serving::Decide(PolicyInput{memory_, rule_, loaded_, elsewhere_, unlisted_, pin_, unloaded_,
                                    std::move(loading), clock_.Now(), settings_});
    CheckTransitions(decision);
    return decision;
  }
  Decision ScanAndDecide() {
    Scan();
    return Decide();
  }

  // Ends the load of `decision` in `verdict`.
  void Finish(const Decision& decision, Verdict verdict, const std::string& reason = "") {
    ASSERT_EQ(decision.action, Action::kLoad);
    Attempt attempt{decision.file, folder_[decision.file].identity, verdict, reason, 0};
    if (verdict == Verdict::kServed) {
      attempt.generation = ++generation_;
      for (LoadedRow& row : loaded_) row.current = false;
      while (loaded_.size() >= 2) loaded_.erase(loaded_.begin());
      loaded_.push_back(
          {decision.version, generation_, decision.file, decision.stem, attempt.identity, true});
    }
    Record(attempt, clock_.Now(), settings_, memory_);
  }

  void Swap(const Decision& decision) {
    ASSERT_EQ(decision.action, Action::kMakeCurrent);
    for (LoadedRow& row : loaded_) row.current = row.generation == decision.generation;
  }

  void ServeNext(const std::string& file) {
    const Decision decision = ScanAndDecide();
    ASSERT_EQ(decision.file, file);
    Finish(decision, Verdict::kServed);
  }

  static const CandidateStatus* Find(const Decision& decision, const std::string& file) {
    for (const CandidateStatus& candidate : decision.candidates) {
      if (candidate.file == file) return &candidate;
    }
    return nullptr;
  }
  VersionState StateOf(const std::string& file) {
    const Decision decision = Decide();
    const CandidateStatus* found = Find(decision, file);
    return found == nullptr ? VersionState::kPassedOver : found->state;
  }

  FakeClock clock_;
  PolicySettings settings_;
  config::VersionRule rule_;
  FolderMemory memory_;
  std::vector<LoadedRow> loaded_;
  std::optional<LoadedRow> elsewhere_;
  std::optional<std::int64_t> pin_;
  bool unlisted_ = false;
  bool unloaded_ = false;
  std::uint64_t generation_ = 0;
  std::map<std::string, storage::FolderEntry> folder_;

 private:
  void CheckTransitions(const Decision& decision) {
    for (const CandidateStatus& candidate : decision.candidates) {
      const auto before = states_.find(candidate.file);
      if (before != states_.end()) {
        EXPECT_TRUE(MayFollow(before->second, candidate.state))
            << candidate.file << ": " << Name(before->second) << " -> " << Name(candidate.state);
      }
      states_[candidate.file] = candidate.state;
    }
  }

  std::uint64_t next_inode_ = 10;
  std::map<std::string, VersionState> states_;
};

TEST_F(VersionPolicyTest, NothingInTheFolderIsNothingToDo) {
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_EQ(decision.wake, absl::InfiniteFuture());
  EXPECT_THAT(decision.newest_problem, IsEmpty());
}

TEST_F(VersionPolicyTest, LoadsTheNewestCandidateByItsNumber) {
  Put("step-9.pt", absl::Seconds(5));
  Put("step-10.pt", absl::Hours(2));
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_EQ(decision.file, "step-10.pt");
  EXPECT_EQ(decision.version, 10);
}

TEST_F(VersionPolicyTest, LoadsTheNewestCandidateByTimeWhenOneNameHasNoDigits) {
  Put("step-9.pt", absl::Seconds(5));
  Put("step-10.pt", absl::Hours(2));
  Put("best.pt", absl::Hours(3));
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-9.pt");
  EXPECT_EQ(decision.version, absl::ToUnixMillis(clock_.Now() - absl::Seconds(5)));
  EXPECT_THAT(decision.rule, HasSubstr("mtime: the name best"));
}

TEST_F(VersionPolicyTest, WhatIsServedIsNotLoadedAgain) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kServing);
}

TEST_F(VersionPolicyTest, NothingStartsWhileALoadIsUnderWay) {
  Put("step-1.pt");
  Scan();
  const Decision decision = Decide("step-1.pt");
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_EQ(Find(decision, "step-1.pt")->state, VersionState::kLoading);
}

TEST_F(VersionPolicyTest, OverwrittenFileIsLoadedAgainUnderTheSameVersion) {
  Put("step-5.pt");
  ServeNext("step-5.pt");
  Grow("step-5.pt");
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_EQ(decision.version, 5);
  Finish(decision, Verdict::kServed);
  ASSERT_EQ(loaded_.size(), 2u);
  EXPECT_EQ(loaded_[0].version, loaded_[1].version);
  EXPECT_NE(loaded_[0].generation, loaded_[1].generation);
}

TEST_F(VersionPolicyTest, LinkTurnedToAnOlderFileIsFollowed) {
  Put("latest.pt", absl::Hours(1));
  ServeNext("latest.pt");
  Put("latest.pt", absl::Hours(5));
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_EQ(decision.file, "latest.pt");
}

TEST_F(VersionPolicyTest, SameWeightsUnderANewerNameAreNotSwappedIn) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  Put("step-2.pt");
  const Decision decision = ScanAndDecide();
  Attempt attempt{decision.file, folder_[decision.file].identity, Verdict::kUnchanged,
                  "same weights", 1};
  Record(attempt, clock_.Now(), settings_, memory_);
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-2.pt"), VersionState::kServing);
}

TEST_F(VersionPolicyTest, OldFilesWithoutChecksumsCountAsSettled) {
  Put("step-1.pt", absl::Seconds(2));
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, FreshFilesWithoutChecksumsWaitForTheSettleTime) {
  Put("step-1.pt", absl::ZeroDuration());
  Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_FALSE(decision.settled);
  Finish(decision, Verdict::kUnsettled, "written a moment ago");
  decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_EQ(decision.wake, clock_.Now() + absl::Seconds(1));
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kWaiting);
  clock_.Advance(absl::Seconds(1));
  decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_TRUE(decision.settled);
}

TEST_F(VersionPolicyTest, WritingOnStartsTheSettleTimeAgain) {
  Put("step-1.pt", absl::ZeroDuration());
  Finish(ScanAndDecide(), Verdict::kUnsettled);
  clock_.Advance(absl::Milliseconds(900));
  Grow("step-1.pt");
  Finish(ScanAndDecide(), Verdict::kUnsettled);
  clock_.Advance(absl::Milliseconds(900));
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  clock_.Advance(absl::Milliseconds(100));
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, FreshFileThatCameByRenameIsSettled) {
  Put("step-1.pt", absl::Milliseconds(10));
  folder_["step-1.pt"].identity.changed = clock_.Now();
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, FileThatCameByRenameBetweenListingAndReadingIsSettled) {
  Put("step-1.pt", absl::ZeroDuration());
  const Decision decision = ScanAndDecide();
  EXPECT_FALSE(decision.settled);
  // The load opens another file than the one that was listed.
  storage::FileIdentity& identity = folder_["step-1.pt"].identity;
  identity.inode += 1000;
  identity.changed = identity.modified + absl::Milliseconds(1);
  Finish(decision, Verdict::kUnsettled);
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, KnownInodeUnderANewNameIsNotTakenForARename) {
  Put("step-1.pt", absl::ZeroDuration());
  Scan();
  folder_["step-2.pt"] = folder_["step-1.pt"];
  folder_["step-2.pt"].name = "step-2.pt";
  folder_["step-2.pt"].stem = "step-2";
  folder_["step-2.pt"].identity.changed = clock_.Now() + absl::Milliseconds(1);
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-2.pt");
  EXPECT_FALSE(decision.settled);
}

TEST_F(VersionPolicyTest, NothingOlderThanWhatServesUnderAnotherConfigIsTaken) {
  Put("step-1.pt");
  Put("step-2.pt");
  elsewhere_ = LoadedRow{2, 7, "step-2.pt", "step-2", folder_["step-2.pt"].identity, true};
  Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-2.pt") << "the same file has to be loaded here too";
  Finish(decision, Verdict::kRefused, "NaN");
  decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_THAT(decision.reason, ::testing::HasSubstr("as new as version 2"));
  EXPECT_THAT(Find(decision, "step-1.pt")->reason, ::testing::HasSubstr("is older than step-2.pt"));
  pin_ = 1;
  EXPECT_EQ(ScanAndDecide().file, "step-1.pt") << "unless it is asked for";
  pin_.reset();
  Put("step-3.pt");
  EXPECT_EQ(ScanAndDecide().file, "step-3.pt");
}

TEST_F(VersionPolicyTest, WhatComesLaterIsJudgedByWatching) {
  // By a network file system whose clock is behind, say.
  Scan();
  Put("step-1.pt", absl::Hours(1));
  EXPECT_FALSE(ScanAndDecide().settled);
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, TimesFromTheFutureAreJudgedByWatching) {
  Put("step-1.pt", -absl::Hours(1));
  EXPECT_FALSE(ScanAndDecide().settled);
  clock_.Advance(absl::Seconds(1));
  EXPECT_TRUE(ScanAndDecide().settled);
}

TEST_F(VersionPolicyTest, TornFileWaitsAndIsRefusedOnceItHasNotGrownForTheTimeout) {
  Put("step-1.pt");
  const absl::Time start = clock_.Now();
  Decision decision = ScanAndDecide();
  while (clock_.Now() - start < settings_.torn_timeout) {
    Finish(decision, Verdict::kTorn, "the end is missing");
    ASSERT_EQ(StateOf("step-1.pt"), VersionState::kWaiting);
    decision = ScanAndDecide();
    ASSERT_EQ(decision.action, Action::kNothing);
    ASSERT_LE(decision.wake, start + settings_.torn_timeout);
    clock_.Advance(decision.wake - clock_.Now());
    decision = ScanAndDecide();
    ASSERT_EQ(decision.action, Action::kLoad);
  }
  Finish(decision, Verdict::kTorn, "the end is missing");
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kRefused);
  decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_EQ(decision.wake, absl::InfiniteFuture());
  EXPECT_EQ(decision.newest_problem, "step-1.pt: the end is missing");
}

TEST_F(VersionPolicyTest, GrowthStartsTheTornTimeoutAgain) {
  Put("step-1.pt");
  for (int i = 0; i < 5; ++i) {
    Finish(ScanAndDecide(), Verdict::kTorn);
    clock_.Advance(absl::Seconds(29));
    Grow("step-1.pt");
  }
  Finish(ScanAndDecide(), Verdict::kTorn);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kWaiting);
  Grow("step-1.pt");
  Finish(ScanAndDecide(), Verdict::kServed);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kServing);
}

TEST_F(VersionPolicyTest, RefusedFileIsTriedAgainOnlyWhenItChanges) {
  Put("step-1.pt");
  Finish(ScanAndDecide(), Verdict::kRefused, "wrong shape");
  clock_.Advance(absl::Hours(100));
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kRefused);
  Grow("step-1.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kLoad);
}

TEST_F(VersionPolicyTest, TransientFailuresAreRetriedWithBackoffUpToAMinute) {
  Put("step-1.pt");
  std::vector<absl::Duration> waits;
  for (int i = 0; i < 9; ++i) {
    Finish(ScanAndDecide(), Verdict::kTransient, "no memory");
    const Decision decision = ScanAndDecide();
    ASSERT_EQ(decision.action, Action::kNothing);
    waits.push_back(decision.wake - clock_.Now());
    ASSERT_EQ(StateOf("step-1.pt"), VersionState::kRetrying);
    clock_.Advance(waits.back());
  }
  const auto s = [](int n) { return absl::Seconds(n); };
  EXPECT_THAT(waits,
              ::testing::ElementsAre(s(1), s(2), s(4), s(8), s(16), s(32), s(60), s(60), s(60)));
}

TEST_F(VersionPolicyTest, ChangedFileIsRetriedAtOnce) {
  Put("step-1.pt");
  Finish(ScanAndDecide(), Verdict::kTransient);
  Grow("step-1.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kLoad);
}

TEST_F(VersionPolicyTest, OlderCandidateServesWhereTheNewestIsRefusedAndNothingServes) {
  Put("step-1.pt");
  Put("step-2.pt");
  Put("step-3.pt");
  Finish(ScanAndDecide(), Verdict::kRefused, "wrong shape");
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-2.pt");
  Finish(decision, Verdict::kServed);
  EXPECT_EQ(ScanAndDecide().newest_problem, "step-3.pt: wrong shape");
}

TEST_F(VersionPolicyTest, RefusedNewerCandidatesNeverLeadBackBehindWhatServes) {
  Put("step-1.pt");
  Put("step-2.pt");
  ServeNext("step-2.pt");
  Put("step-3.pt");
  Finish(ScanAndDecide(), Verdict::kRefused);
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

TEST_F(VersionPolicyTest, OlderCandidateServesWhileTheNewestIsStillTorn) {
  Put("step-1.pt");
  Put("step-2.pt");
  Finish(ScanAndDecide(), Verdict::kTorn);
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-1.pt");
  Finish(decision, Verdict::kServed);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(ScanAndDecide().file, "step-2.pt");
}

TEST_F(VersionPolicyTest, DeletingWhatServesDoesNotGoBack) {
  Put("step-1.pt");
  Put("step-2.pt");
  ServeNext("step-2.pt");
  Remove("step-2.pt");
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
    clock_.Advance(absl::Seconds(1));
  }
}

TEST_F(VersionPolicyTest, RemovalCountsOnlyAfterTwoScansAndFiveSeconds) {
  Put("step-1.pt");
  Finish(ScanAndDecide(), Verdict::kRefused, "wrong shape");
  const storage::FolderEntry entry = folder_["step-1.pt"];
  Remove("step-1.pt");
  Scan();
  clock_.Advance(absl::Seconds(4));
  Scan();
  Scan();
  folder_["step-1.pt"] = entry;
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kRefused);
  Remove("step-1.pt");
  Scan();
  clock_.Advance(absl::Seconds(5));
  Scan();
  EXPECT_THAT(memory_.files, IsEmpty());
}

TEST_F(VersionPolicyTest, OneScanAfterALongTimeIsNotARemoval) {
  Put("step-1.pt");
  Scan();
  Remove("step-1.pt");
  clock_.Advance(absl::Hours(1));
  Scan();
  EXPECT_EQ(memory_.files.size(), 1u);
}

TEST_F(VersionPolicyTest, FileThatBlinksDoesNotFlipTheRule) {
  Put("step-1.pt", absl::Hours(1));
  Put("best.pt", absl::Hours(2));
  ServeNext("step-1.pt");
  Remove("best.pt");
  EXPECT_THAT(ScanAndDecide().rule, HasSubstr("mtime"));
}

TEST_F(VersionPolicyTest, EmptyFolderUnloadsNothing) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  folder_.clear();
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
    clock_.Advance(absl::Seconds(10));
  }
}

TEST_F(VersionPolicyTest, FolderThatCannotBeListedUnloadsAndForgetsNothing) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  Put("step-2.pt");
  Finish(ScanAndDecide(), Verdict::kRefused, "wrong shape");
  unlisted_ = true;
  const Decision decision = Decide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_THAT(decision.candidates, IsEmpty());
  unlisted_ = false;
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-2.pt"), VersionState::kRefused);
}

TEST_F(VersionPolicyTest, RuleThatFlipsComparesByTimeAndDoesNotGoBack) {
  Put("step-9.pt", absl::Hours(2));
  Put("best.pt", absl::Hours(1));
  ServeNext("best.pt");
  Remove("best.pt");
  for (int i = 0; i < 10; ++i) {
    const Decision decision = ScanAndDecide();
    EXPECT_EQ(decision.action, Action::kNothing) << decision.rule;
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_THAT(ScanAndDecide().rule, HasSubstr("name"));
  Put("step-10.pt", absl::ZeroDuration());
  EXPECT_EQ(ScanAndDecide().file, "step-10.pt");
}

TEST_F(VersionPolicyTest, PinToALoadedVersionSwapsWithoutLoading) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  Put("step-2.pt");
  ServeNext("step-2.pt");
  pin_ = 1;
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kMakeCurrent);
  EXPECT_EQ(decision.generation, 1u);
  Swap(decision);
  Put("step-3.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

TEST_F(VersionPolicyTest, PinTakesTheNewestGenerationOfTheVersion) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  Grow("step-1.pt");
  ServeNext("step-1.pt");
  for (LoadedRow& row : loaded_) row.current = false;
  pin_ = 1;
  EXPECT_EQ(ScanAndDecide().generation, 2u);
}

TEST_F(VersionPolicyTest, PinToAFileInTheFolderLoadsIt) {
  Put("step-1.pt");
  Put("step-2.pt");
  ServeNext("step-2.pt");
  pin_ = 1;
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kLoad);
  EXPECT_EQ(decision.file, "step-1.pt");
  EXPECT_FALSE(decision.unchanged_will_do);
}

TEST_F(VersionPolicyTest, PinToAMissingVersionKeepsWhatServesAndSaysSo) {
  Put("step-2.pt");
  ServeNext("step-2.pt");
  pin_ = 1;
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_THAT(decision.reason, HasSubstr("neither loaded nor in the folder"));
}

TEST_F(VersionPolicyTest, PinToAMissingVersionServesNothingElseAfterARestart) {
  Put("step-2.pt");
  pin_ = 1;
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

TEST_F(VersionPolicyTest, PinToARefusedFileSaysWhy) {
  Put("step-1.pt");
  pin_ = 1;
  Finish(ScanAndDecide(), Verdict::kRefused, "wrong shape");
  EXPECT_THAT(ScanAndDecide().reason, HasSubstr("wrong shape"));
}

TEST_F(VersionPolicyTest, PinFreezesAgainstOverwriting) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  pin_ = 1;
  Grow("step-1.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

TEST_F(VersionPolicyTest, UnpinGoesBackToTheNewestWithoutLoadingWhatIsLoaded) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  Put("step-2.pt");
  ServeNext("step-2.pt");
  pin_ = 1;
  Swap(ScanAndDecide());
  pin_.reset();
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kMakeCurrent);
  EXPECT_EQ(decision.generation, 2u);
}

TEST_F(VersionPolicyTest, UnloadedModelDropsEverythingAndStaysSo) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  unloaded_ = true;
  EXPECT_EQ(ScanAndDecide().action, Action::kUnloadAll);
  loaded_.clear();
  Put("step-2.pt");
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kRetired);
}

TEST_F(VersionPolicyTest, ForcingTriesWhatWaitsOrWasRefused) {
  for (const Verdict verdict :
       {Verdict::kTorn, Verdict::kTransient, Verdict::kUnsettled, Verdict::kRefused}) {
    memory_ = {};
    Put("step-1.pt", absl::ZeroDuration());
    Finish(ScanAndDecide(), verdict);
    ASSERT_EQ(ScanAndDecide().action, Action::kNothing);
    ForceAll(memory_);
    const Decision decision = ScanAndDecide();
    EXPECT_EQ(decision.action, Action::kLoad);
    EXPECT_TRUE(decision.settled);
    Finish(decision, verdict);
    EXPECT_EQ(ScanAndDecide().action, Action::kNothing) << "forcing lasts for one attempt";
  }
}

TEST_F(VersionPolicyTest, ForcingDoesNotReloadWhatServes) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  ForceAll(memory_);
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

TEST_F(VersionPolicyTest, OfTwoFilesWithOneVersionTheNewerIsTaken) {
  Put("step-1.pt", absl::Hours(2));
  Put("run-1.pt", absl::Hours(1));
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "run-1.pt");
  const CandidateStatus* other = Find(decision, "step-1.pt");
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(other->state, VersionState::kPassedOver);
  EXPECT_EQ(other->reason, "has version 1 like run-1.pt, which is newer");
}

TEST_F(VersionPolicyTest, FilesThatTheRuleCannotReadArePassedOverWithTheReason) {
  rule_.from = config::VersionSource::kName;
  Put("best.pt", absl::ZeroDuration());
  Put("step-1.pt");
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.file, "step-1.pt");
  EXPECT_THAT(Find(decision, "best.pt")->reason, HasSubstr("does not end in digits"));
}

TEST_F(VersionPolicyTest, FileThatIsOlderThanWhatServesIsFoundAndSaysSo) {
  Put("step-2.pt");
  ServeNext("step-2.pt");
  Put("step-1.pt");
  const Decision decision = ScanAndDecide();
  EXPECT_EQ(decision.action, Action::kNothing);
  EXPECT_EQ(Find(decision, "step-1.pt")->state, VersionState::kFound);
  EXPECT_THAT(Find(decision, "step-1.pt")->reason, HasSubstr("older than step-2.pt"));
}

TEST_F(VersionPolicyTest, ServedFileThatWasForgottenAndComesBackServes) {
  Put("step-1.pt");
  ServeNext("step-1.pt");
  const storage::FolderEntry entry = folder_["step-1.pt"];
  Remove("step-1.pt");
  for (int i = 0; i < 3; ++i) {
    clock_.Advance(absl::Seconds(5));
    Scan();
  }
  ASSERT_TRUE(memory_.files.empty());
  folder_["step-1.pt"] = entry;
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
  EXPECT_EQ(StateOf("step-1.pt"), VersionState::kServing);
}

TEST_F(VersionPolicyTest, FilesThatAreNoCandidatesAreListedWithTheirReason) {
  storage::FolderEntry entry;
  entry.name = "fifo.pt";
  entry.reason = "is a FIFO";
  Observe({entry}, clock_.Now(), settings_, memory_);
  const Decision decision = Decide();
  ASSERT_EQ(decision.candidates.size(), 1u);
  EXPECT_EQ(decision.candidates[0].state, VersionState::kPassedOver);
  EXPECT_EQ(decision.candidates[0].reason, "is a FIFO");
}

TEST_F(VersionPolicyTest, FileThatChangedBetweenListingAndOpeningIsNotLoadedTwice) {
  Put("step-1.pt");
  const Decision decision = ScanAndDecide();
  Grow("step-1.pt");
  Finish(decision, Verdict::kServed);
  EXPECT_EQ(ScanAndDecide().action, Action::kNothing);
}

// Whatever happens, what serves only ever gets newer by itself, and each walk ends.
TEST_F(VersionPolicyTest, RandomStoriesNeverGoBackAndAlwaysComeToRest) {
  std::mt19937 random(7);
  const auto roll = [&](unsigned n) { return random() % n; };
  for (int step = 0; step < 3000; ++step) {
    const std::string name = "step-" + std::to_string(roll(12)) + ".pt";
    switch (roll(4)) {
      case 0:
        Put(name, absl::Seconds(roll(10)));
        break;
      case 1:
        Remove(name);
        break;
      case 2:
        if (folder_.contains(name)) Grow(name);
        break;
      default:
        clock_.Advance(absl::Milliseconds(roll(20'000)));
    }
    Scan();
    int actions = 0;
    for (Decision decision = Decide(); decision.action != Action::kNothing; decision = Decide()) {
      ASSERT_LT(++actions, 50) << "step " << step;
      const auto before = std::find_if(loaded_.begin(), loaded_.end(),
                                       [](const LoadedRow& row) { return row.current; });
      if (before != loaded_.end()) {
        if (decision.action == Action::kLoad && decision.file != before->file) {
          ASSERT_GE(decision.version, before->version);
        }
      }
      if (decision.action == Action::kMakeCurrent) {
        Swap(decision);
        continue;
      }
      static constexpr Verdict kVerdicts[] = {Verdict::kServed, Verdict::kTorn, Verdict::kRefused,
                                              Verdict::kTransient, Verdict::kUnsettled};
      Verdict verdict = kVerdicts[roll(5)];
      if (verdict == Verdict::kUnsettled && decision.settled) verdict = Verdict::kServed;
      Finish(decision, verdict, "reason");
    }
  }
}

}  // namespace
}  // namespace relight::serving
