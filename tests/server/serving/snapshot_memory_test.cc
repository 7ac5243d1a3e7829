// What a snapshot takes in memory does not grow with the model.
#include <gtest/gtest.h>

#include "tests/counted_allocations.h"
#include "tests/server/serving/core_harness.h"

namespace relight::serving {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

class SnapshotMemoryTest : public CoreTest {
 protected:
  // The most that a snapshot of `mebibytes` of weights and as much momentum takes beside them.
  std::size_t PeakOfSnapshot(std::size_t mebibytes, SnapshotFormat format) {
    const std::size_t elements = mebibytes * kMiB / sizeof(float);
    world_->weight_elements = static_cast<std::int64_t>(elements);
    ReplaceFile(In("step-1.pt"),
                CheckpointBytes(std::vector<float>(elements, 10), std::vector<float>(elements, 3)));
    Start();
    EXPECT_EQ(Served(), 1);
    EXPECT_TRUE(StatusOf().loaded[0].training_state);
    const std::uint64_t blocks = factory_.allocated_bytes();
    EXPECT_GE(blocks, mebibytes * kMiB);
    SnapshotRequest request;
    request.model = "m";
    request.overwrite = true;
    request.format = format;
    const PeakMemory peak;
    const absl::StatusOr<SnapshotResult> result = core_->Snapshot(request, {});
    const std::size_t peak_bytes = peak.bytes();
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_GE(result->size_bytes, mebibytes * kMiB);
    EXPECT_EQ(factory_.allocated_bytes(), blocks) << "memory for weights was asked for";
    return peak_bytes;
  }
};

TEST_F(SnapshotMemoryTest, StaysFlatHoweverLargeTheModel) {
  for (const SnapshotFormat format :
       {SnapshotFormat::kBundle, SnapshotFormat::kStateDict, SnapshotFormat::kSafetensors}) {
    const std::size_t small = PeakOfSnapshot(8, format);
    const std::size_t large = PeakOfSnapshot(96, format);
    EXPECT_LT(large, 8 * kMiB);
    EXPECT_LT(large, small + kMiB);
  }
}

}  // namespace
}  // namespace relight::serving
