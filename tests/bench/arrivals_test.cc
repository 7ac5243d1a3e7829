#include "bench/load/arrivals.h"

#include <cmath>

#include "gtest/gtest.h"

namespace relight::bench {
namespace {

constexpr int kCount = 100'000;

TEST(ArrivalsTest, ComeAtTheRateAskedFor) {
  Arrivals arrivals(5'000'000'000, 1'000, 1);
  std::int64_t last = 5'000'000'000;
  for (int i = 0; i < kCount; ++i) {
    const std::int64_t next = arrivals.NextNs();
    EXPECT_GE(next, last);
    last = next;
  }
  // A hundred seconds; the deviation of the sum is a 300th of it.
  EXPECT_NEAR(static_cast<double>(last - 5'000'000'000) / 1e9, 100, 1.5);
}

// Gaps are distributed exponentially: a share of 1 - 1/e is shorter than the mean.
TEST(ArrivalsTest, KnowNothingOfEachOther) {
  Arrivals arrivals(0, 1e6, 7);
  std::int64_t last = 0;
  int shorter = 0;
  for (int i = 0; i < kCount; ++i) {
    const std::int64_t next = arrivals.NextNs();
    if (next - last < 1'000) ++shorter;
    last = next;
  }
  EXPECT_NEAR(static_cast<double>(shorter) / kCount, 1 - std::exp(-1), 0.01);
}

TEST(ArrivalsTest, AreTheSameForTheSameSeed) {
  Arrivals a(0, 50, 3);
  Arrivals b(0, 50, 3);
  Arrivals other(0, 50, 4);
  const std::int64_t first = a.NextNs();
  EXPECT_EQ(first, b.NextNs());
  EXPECT_NE(first, other.NextNs());
}

}  // namespace
}  // namespace relight::bench
