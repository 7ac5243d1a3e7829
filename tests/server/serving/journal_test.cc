#include "server/serving/journal.h"

#include <gtest/gtest.h>

namespace relight::serving {
namespace {

HistoryEntry Served(std::uint64_t generation) {
  return {.event = HistoryEvent::kServed, .generation = generation};
}

TEST(JournalTest, GivesTheNewestFirstAndKeepsTheLast256) {
  Journal journal;
  for (std::uint64_t i = 1; i <= 300; ++i) journal.Add(Served(i));
  EXPECT_EQ(journal.Newest(0).size(), 256u);
  EXPECT_EQ(journal.Newest(0).front().generation, 300u);
  EXPECT_EQ(journal.Newest(0).back().generation, 45u);
  EXPECT_EQ(journal.Newest(2).size(), 2u);
  EXPECT_EQ(journal.Newest(1000).size(), 256u);
}

TEST(JournalTest, ShaOfAFileIsFilledInLater) {
  Journal journal;
  journal.Add(Served(1));
  journal.Add({.event = HistoryEvent::kRetired, .generation = 1});
  journal.SetFileSha256(1, "abc");
  EXPECT_EQ(journal.Newest(0)[1].file_sha256, "abc");
  EXPECT_EQ(journal.Newest(0)[0].file_sha256, "");
}

TEST(JournalTest, TotalsCountByOutcomeAndPhase) {
  Journal journal;
  const absl::Time now = absl::FromUnixSeconds(100);
  ModelStatistics statistics;
  journal.Fill(now, statistics);
  EXPECT_EQ(statistics.reloads.at("refused"), 0u);
  EXPECT_LT(statistics.seconds_since_last_good_load, 0);
  journal.CountReload("served");
  journal.CountReload("served");
  journal.CountPhase("read", absl::Milliseconds(3));
  journal.SetLastGoodLoad(now - absl::Seconds(7));
  journal.Fill(now, statistics);
  EXPECT_EQ(statistics.reloads.at("served"), 2u);
  EXPECT_EQ(statistics.reload_phases.at("read").nanoseconds, 3'000'000u);
  EXPECT_EQ(statistics.seconds_since_last_good_load, 7);
}

}  // namespace
}  // namespace relight::serving
