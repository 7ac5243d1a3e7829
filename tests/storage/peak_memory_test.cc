// What refusing a hostile file costs, and writing a large one.
#include <string>

#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/safetensors_writer.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "storage/writer.h"
#include "tests/counted_allocations.h"
#include "tests/storage/fixtures.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxPeakBytes = std::size_t{64} << 20;

TEST(PeakMemory, RefusingAHostileFileTakesLittle) {
  for (const std::string& file : FixtureNames("hostile")) {
    SCOPED_TRACE(file);
    const std::string path = DataPath(file);
    const PeakMemory peak;
    {
      const absl::StatusOr<Checkpoint> opened = Checkpoint::Open(path);
      const absl::StatusOr<StateDict> found =
          opened.ok() ? FindStateDict(*opened) : absl::StatusOr<StateDict>(opened.status());
      const absl::StatusOr<WeightPlan> plan = found.ok()
                                                  ? PlanWeights(*opened, *found, {})
                                                  : absl::StatusOr<WeightPlan>(found.status());
      if (plan.ok()) {
        EXPECT_LT(plan->total_bytes, kMaxPeakBytes);
      }
    }
    EXPECT_LT(peak.bytes(), kMaxPeakBytes);
  }
}

// One storage without memory of its own.
class Zeros final : public StorageSource {
 public:
  explicit Zeros(std::uint64_t size_bytes) : size_bytes_(size_bytes) {}
  absl::Status Stream(std::uint32_t, const ByteSink& sink) const override {
    static const std::byte kPiece[4096] = {};
    for (std::uint64_t left = size_bytes_; left > 0; left -= sizeof kPiece) {
      const absl::Status status = sink(kPiece);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  std::uint64_t SizeBytes(std::uint32_t) const override { return size_bytes_; }
  DType ElementType(std::uint32_t) const override { return DType::kComplex64; }

 private:
  const std::uint64_t size_bytes_;
};

// Large tensors, however they have to be written: as they lie, resolved, made dense.
TEST(PeakMemory, WritingTakesTheSameHoweverLargeTheTensorsAre) {
  for (const std::int64_t side : {2048, 4096}) {  // 32 and 128 MiB each.
    Tree tree;
    TensorInfo tensor;
    tensor.dtype = DType::kComplex64;
    tensor.shape = {side, side};
    tensor.stride = {1, side};
    const NodeId dict = tree.Add(NodeKind::kDict);
    tree.SetItem(dict, tree.AddText(NodeKind::kString, "plain"), tree.AddTensor(tensor));
    tensor.conj = true;
    tree.SetItem(dict, tree.AddText(NodeKind::kString, "lazy"), tree.AddTensor(tensor));
    const Zeros source(static_cast<std::uint64_t>(side * side) * 8);
    std::uint64_t written = 0;
    const ByteSink count = [&written](absl::Span<const std::byte> bytes) {
      written += bytes.size();
      return absl::OkStatus();
    };
    const PeakMemory peak;
    ASSERT_TRUE(WriteCheckpoint(tree, dict, source, {}, count).ok());
    ASSERT_TRUE(WriteSafetensors(tree, dict, source, {}, count).ok());
    EXPECT_GT(written, 4 * source.SizeBytes(0));
    EXPECT_LT(peak.bytes(), std::size_t{20} << 20) << side;
  }
}

TEST(PeakMemory, TheCounterSeesAllocations) {
  const PeakMemory peak;
  { const std::string large(std::size_t{1} << 20, 'x'); }
  EXPECT_GE(peak.bytes(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace relight::storage
