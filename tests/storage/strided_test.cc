#include "storage/strided.h"

#include <cstring>
#include <numeric>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace relight::storage {
namespace {

using ::testing::ElementsAre;
using Sizes = std::vector<std::int64_t>;
// Offset by one stride and by the other, as often as it occurs.
using Places = std::multiset<std::pair<std::int64_t, std::int64_t>>;

// Every element of a shape, by counting.
Places AllPlaces(const Sizes& shape, const Sizes& stride, const Sizes& other) {
  Places places;
  const std::uint64_t count = CountElements(shape);
  for (std::uint64_t i = 0; i < count; ++i) {
    std::uint64_t rest = i;
    std::int64_t offset = 0;
    std::int64_t other_offset = 0;
    for (std::size_t d = shape.size(); d-- > 0;) {
      const auto index = static_cast<std::int64_t>(rest % static_cast<std::uint64_t>(shape[d]));
      rest /= static_cast<std::uint64_t>(shape[d]);
      offset += index * stride[d];
      other_offset += index * other[d];
    }
    places.emplace(offset, other_offset);
  }
  return places;
}

Places FoundPlaces(const Sizes& shape, const Sizes& stride, const Sizes& other, std::int64_t begin,
                   std::int64_t end) {
  Places places;
  ForEachRunBetween(shape, stride, other, begin, end, [&](const StridedRun& run) {
    for (std::int64_t i = 0; i < run.count; ++i) {
      places.emplace(run.offset + i * run.step, run.other + i * run.other_step);
    }
  });
  return places;
}

TEST(ForEachRunBetweenTest, FindsEveryElementInTheRangeOnceAndNoOther) {
  std::mt19937 random(20240607);  // NOLINT: the same every time.
  const auto pick = [&random](std::int64_t from, std::int64_t to) {
    return std::uniform_int_distribution<std::int64_t>(from, to)(random);
  };
  for (int round = 0; round < 3000; ++round) {
    Sizes shape;
    Sizes stride;
    for (std::int64_t rank = pick(0, 4); rank > 0; --rank) {
      shape.push_back(pick(0, 9) == 0 ? 0 : pick(1, 5));
      // Zero, overlapping and far apart, in any order.
      stride.push_back(pick(0, 3) == 0 ? 0 : pick(1, pick(1, 30)));
    }
    const Sizes other = DenseStride(shape);
    const std::int64_t begin = pick(-5, 60);
    const std::int64_t end = begin + pick(0, 40);
    Places expected;
    for (const auto& place : AllPlaces(shape, stride, other)) {
      if (place.first >= begin && place.first < end) expected.insert(place);
    }
    ASSERT_EQ(FoundPlaces(shape, stride, other, begin, end), expected)
        << testing::PrintToString(shape) << " " << testing::PrintToString(stride) << " [" << begin
        << ", " << end << ")";
  }
}

TEST(ForEachRunBetweenTest, ARangeOfATransposedMatrixCostsWhatIsInIt) {
  std::uint64_t runs = 0;
  const Sizes shape = {100'000, 50'000};
  const Sizes stride = {1, 100'000};
  ForEachRunBetween(shape, stride, DenseStride(shape), 2'000'000'000, 2'000'100'000,
                    [&runs](const StridedRun& run) {
                      ++runs;
                      EXPECT_EQ(run.count, 100'000);
                      EXPECT_EQ(run.other, 20'000);
                      EXPECT_EQ(run.other_step, 50'000);
                    });
  EXPECT_EQ(runs, 1u);
}

TEST(ForEachRunBetweenTest, AScalarIsOneElement) {
  EXPECT_EQ(FoundPlaces({}, {}, {}, 0, 1), (Places{{0, 0}}));
  EXPECT_EQ(FoundPlaces({}, {}, {}, 1, 5), Places{});
  EXPECT_EQ(FoundPlaces({1, 1}, {7, 3}, {1, 1}, 0, 1), (Places{{0, 0}}));
}

TEST(LastOffsetTest, IsThatOfTheLastElement) {
  EXPECT_EQ(LastOffset({}, {}), 0);
  EXPECT_EQ(LastOffset({3, 4}, {4, 1}), 11);
  EXPECT_EQ(LastOffset({3, 4}, {0, 2}), 6);
  EXPECT_EQ(LastOffset({3, 0}, {9, 9}), 0);
}

TEST(StridedReaderTest, GivesElementsInRowMajorOrderInPieces) {
  const std::vector<std::uint16_t> storage = {0, 1, 2, 3, 4, 5};
  const Sizes shape = {3, 2};
  const Sizes stride = {1, 3};
  StridedReader reader(reinterpret_cast<const std::byte*>(storage.data()), shape, stride, 2);
  std::vector<std::uint16_t> read(6);
  std::size_t at = 0;
  while (const std::size_t got = reader.Read(reinterpret_cast<std::byte*>(&read[at]), 4)) at += got;
  EXPECT_EQ(at, 6u);
  EXPECT_THAT(read, ElementsAre(0, 3, 1, 4, 2, 5));
}

// In more than one stretch.
TEST(ForEachStretchTest, GivesAllElementsInRowMajorOrder) {
  std::vector<std::uint32_t> storage(300 * 200);
  std::iota(storage.begin(), storage.end(), 0U);
  const auto read = [&](const Sizes& shape, const Sizes& stride) {
    std::vector<std::uint32_t> elements;
    int stretches = 0;
    ForEachStretch(reinterpret_cast<const std::byte*>(storage.data()), shape, stride, 4,
                   [&](absl::Span<const std::byte> bytes) {
                     ++stretches;
                     ASSERT_EQ(bytes.size() % 4, 0u);
                     const std::size_t at = elements.size();
                     elements.resize(at + bytes.size() / 4);
                     std::memcpy(&elements[at], bytes.data(), bytes.size());
                   });
    EXPECT_GT(stretches, 1);
    return elements;
  };
  EXPECT_EQ(read({300, 200}, {200, 1}), storage);
  std::vector<std::uint32_t> transposed;
  for (std::uint32_t column = 0; column < 200; ++column) {
    for (std::uint32_t row = 0; row < 300; ++row) transposed.push_back(row * 200 + column);
  }
  EXPECT_EQ(read({200, 300}, {1, 200}), transposed);
}

TEST(ForEachStretchTest, NoElementsAreNoStretchAndNeedNoMemory) {
  int stretches = 0;
  const auto count = [&stretches](absl::Span<const std::byte>) { ++stretches; };
  ForEachStretch(nullptr, {3, 0}, {1, 1}, 4, count);
  ForEachStretch(nullptr, {0, 3}, {1, 7}, 4, count);
  EXPECT_EQ(stretches, 0);
}

}  // namespace
}  // namespace relight::storage
