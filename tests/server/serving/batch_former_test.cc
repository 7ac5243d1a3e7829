#include "server/serving/batch_former.h"

#include <gtest/gtest.h>

#include <ostream>
#include <vector>

namespace relight::serving {
namespace {

struct Row {
  const char* situation;
  std::int64_t max_batch_size;
  std::vector<std::int64_t> preferred;
  absl::Duration delay;
  std::vector<std::int64_t> waiting;
  absl::Duration waited;
  std::size_t take;
  absl::Duration wait = absl::ZeroDuration();
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.situation; }

constexpr absl::Duration kNow = absl::ZeroDuration();
const absl::Duration k1ms = absl::Milliseconds(1);
const absl::Duration k10ms = absl::Milliseconds(10);
const absl::Duration k9ms = absl::Milliseconds(9);

class DecideBatchTest : public ::testing::TestWithParam<Row> {};

TEST_P(DecideBatchTest, Decides) {
  const Row& row = GetParam();
  config::Batching batching;
  batching.max_batch_size = row.max_batch_size;
  batching.preferred_batch_sizes = row.preferred;
  batching.max_queue_delay = row.delay;
  const BatchDecision decision = DecideBatch(batching, row.waiting, row.waited);
  EXPECT_EQ(decision.take, row.take);
  EXPECT_EQ(decision.wait, row.wait);
}

INSTANTIATE_TEST_SUITE_P(
    All, DecideBatchTest,
    ::testing::Values(
        Row{"NoBatchDimensionTakesOne", 0, {}, kNow, {1, 1, 1}, kNow, 1},
        Row{"NoBatchDimensionNeverWaits", 0, {}, k10ms, {1}, kNow, 1},
        Row{"LoneRequestGoesAtOnce", 8, {}, kNow, {1}, kNow, 1},
        Row{"AllThatWaitsGoes", 8, {}, kNow, {1, 2, 3}, kNow, 3},
        Row{"ExactlyFull", 6, {}, kNow, {1, 2, 3}, kNow, 3},
        Row{"StopsBeforeTheOneThatDoesNotFit", 5, {}, kNow, {1, 2, 3}, kNow, 2},
        Row{"LargestRequestAlone", 5, {}, kNow, {5, 1}, kNow, 1},
        Row{"OneThatDoesNotFitIsNotPassedOver", 5, {}, kNow, {3, 4, 1}, kNow, 1},
        Row{"PreferredSizesMeanNothingWithoutADelay", 8, {2}, kNow, {1, 1, 1}, kNow, 3},
        Row{"WaitsForCompany", 8, {}, k10ms, {1, 2}, k1ms, 0, k9ms},
        Row{"DelayHasPassed", 8, {}, k10ms, {1, 2}, k10ms, 2},
        Row{"DelayHasLongPassed", 8, {}, k10ms, {1}, absl::InfiniteDuration(), 1},
        Row{"FullBatchDoesNotWait", 3, {}, k10ms, {1, 2}, kNow, 2},
        Row{"BatchThatCannotGrowDoesNotWait", 4, {}, k10ms, {1, 2, 3}, kNow, 2},
        Row{"PreferredSizeDoesNotWait", 8, {3}, k10ms, {1, 2}, kNow, 2},
        Row{"LargestPreferredSizeThatCanBeMade", 8, {2, 4}, k10ms, {1, 1, 1, 1, 1}, kNow, 4},
        Row{"PreferredSizeBetweenRequestsIsNone", 8, {3}, k10ms, {2, 2}, kNow, 0, k10ms},
        Row{"FullBatchBeatsAPreferredSize", 4, {2}, k10ms, {1, 1, 2}, kNow, 3},
        Row{"PreferredSizeBeatsABatchThatCannotGrow", 4, {2}, k10ms, {1, 1, 1, 3}, kNow, 2},
        Row{"PreferredSizeStillToComeWaits", 8, {4}, k10ms, {1, 1, 1}, k1ms, 0, k9ms},
        Row{"WithoutAPreferredSizeTheDelayEndsIt", 8, {4}, k10ms, {1, 1, 1}, k10ms, 3},
        Row{"RowsThatWouldOverflowTheSum", 8, {}, kNow, {1, INT64_MAX}, kNow, 1}),
    [](const auto& test) { return test.param.situation; });

}  // namespace
}  // namespace relight::serving
