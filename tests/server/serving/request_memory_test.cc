// What a request allocates on its way does not grow with its tensors.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "tests/counted_allocations.h"
#include "tests/server/serving/request_harness.h"

namespace relight::serving {
namespace {

constexpr std::int64_t kRows = 64 << 10;  // Half a megabyte.

// Answers each row with one float, all of them out of the same memory.
class NoCost final : public model::BoundModel {
 public:
  explicit NoCost(bool quick) : quick_(quick) {}

  absl::StatusOr<std::vector<model::HostTensor>> Forward(
      absl::Span<const model::HostTensor> inputs) const override {
    gate.Pass();
    const std::int64_t rows = inputs.front().shape.front();
    return std::vector<model::HostTensor>{{DType::kFloat32,
                                           {rows, 1},
                                           {answers_, answers_->data()},
                                           static_cast<std::uint64_t>(rows) * sizeof(float)}};
  }
  bool IsQuick(std::uint64_t) const override { return quick_; }

  mutable Gate gate;

 private:
  using Answers = std::vector<std::byte>;
  const bool quick_;
  const std::shared_ptr<const Answers> answers_ =
      std::make_shared<const Answers>(16 * kRows * sizeof(float));
};

class RequestMemoryTest : public ::testing::Test {
 protected:
  void Serve(bool quick) {
    Signature signature = FakeSignature(16 * kRows);
    signature.outputs = {{"y", DType::kFloat32, {-1, 1}}};
    signature.batching.max_queue_bytes = std::uint64_t{1} << 30;
    path_ = MakeRequestPath(std::move(signature), MakeComputePool(1));
    model_ = std::make_shared<NoCost>(quick);
    auto version = std::make_shared<ServedVersion>();
    version->version = version->generation = 1;
    version->model = model_;
    version->counters = MakeVersionCounters();
    path_->slot().Publish(std::move(version));
  }

  std::shared_ptr<NoCost> model_;
  std::unique_ptr<RequestPath> path_;
};

TEST_F(RequestMemoryTest, OfOneThatRunsAtOnce) {
  Serve(/*quick=*/true);
  model_->gate.Open();
  std::array<InferRequest, 2> requests = {RowsOf(1, kRows), RowsOf(1, kRows)};
  std::array<Call, 2> calls;
  path_->Infer(std::move(requests[0]), calls[0].Done());  // Counters of its size are made.
  const AllocationCount count;
  path_->Infer(std::move(requests[1]), calls[1].Done());
  const std::size_t allocations = count.allocations();
  const std::size_t bytes = count.bytes();
  EXPECT_TRUE(calls[1].WaitStatus().ok());
  EXPECT_LE(allocations, 8U);
  EXPECT_LE(bytes, 2048U);
}

TEST_F(RequestMemoryTest, OfABatch) {
  Serve(/*quick=*/false);
  constexpr std::size_t kRequests = 8;
  std::vector<InferRequest> requests(kRequests, RowsOf(1, kRows));
  std::array<Call, kRequests> calls;
  Call held;
  path_->Infer(RowsOf(1), held.Done());
  model_->gate.AwaitArrivals(1);
  const AllocationCount count;
  for (std::size_t i = 0; i < kRequests; ++i) {
    path_->Infer(std::move(requests[i]), calls[i].Done());
  }
  model_->gate.Open();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  const std::size_t allocations = count.allocations();
  const std::size_t bytes = count.bytes();
  for (Call& call : calls) EXPECT_TRUE(call.WaitStatus().ok());
  EXPECT_LE(allocations, 8 * kRequests);
  EXPECT_LE(bytes, 2048 * kRequests);
}

}  // namespace
}  // namespace relight::serving
