#include "bench/load/latencies.h"

#include "gtest/gtest.h"

namespace relight::bench {
namespace {

Latencies Of(std::initializer_list<std::int64_t> latencies) {
  Latencies all;
  for (const std::int64_t latency : latencies) all.Add({0, latency});
  return all;
}

TEST(LatenciesTest, QuantilesAreThoseOfTheSampleOfThatRank) {
  const Latencies latencies = Of({50, 20, 40, 10, 30});
  EXPECT_EQ(latencies.QuantileNs(0.2), 10);
  EXPECT_EQ(latencies.QuantileNs(0.21), 20);
  EXPECT_EQ(latencies.QuantileNs(0.5), 30);
  EXPECT_EQ(latencies.QuantileNs(0.8), 40);
  EXPECT_EQ(latencies.QuantileNs(0.99), 50);
  EXPECT_EQ(latencies.QuantileNs(1), 50);
}

TEST(LatenciesTest, OneStallInAThousandIsInTheLastQuantileAlone) {
  Latencies latencies;
  for (int i = 0; i < 999; ++i) latencies.Add({i, 100});
  latencies.Add({999, 5'000});
  EXPECT_EQ(latencies.QuantileNs(0.999), 100);
  EXPECT_EQ(latencies.QuantileNs(1), 5'000);
  EXPECT_DOUBLE_EQ(latencies.MeanNs(), (999 * 100.0 + 5'000) / 1'000);
}

TEST(LatenciesTest, WhatIsAddedLaterCounts) {
  Latencies latencies = Of({1, 2});
  EXPECT_EQ(latencies.QuantileNs(1), 2);
  latencies.Add(Of({9, 8}));
  EXPECT_EQ(latencies.QuantileNs(1), 9);
  EXPECT_EQ(latencies.count(), 4u);
  EXPECT_EQ(latencies.samples().back().latency_ns, 8);
}

TEST(LatenciesTest, NoSamplesHaveNoLatency) {
  EXPECT_EQ(Latencies().QuantileNs(0.5), 0);
  EXPECT_EQ(Latencies().MeanNs(), 0);
}

}  // namespace
}  // namespace relight::bench
