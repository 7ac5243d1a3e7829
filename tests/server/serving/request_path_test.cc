#include "server/serving/request_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "base/clock.h"
#include "tests/server/serving/request_harness.h"

namespace relight::serving {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(status.message()); }

class RequestPathTest : public ::testing::Test {
 protected:
  static constexpr float kUnlucky = 13;

  void TearDown() override {
    gate_.Open();
    path_.reset();
  }

  void Start(Signature signature, int threads = 1) {
    outputs_ = signature.outputs.size();
    path_ = MakeRequestPath(std::move(signature), MakeComputePool(threads), clock_);
  }
  void Publish(std::int64_t version, std::uint64_t generation, float weight) {
    path_->slot().Publish(MakeVersion(world_, version, generation, weight, outputs_));
  }
  // A model with one version, 1, whose weight is 10.
  void StartServing(Signature signature, int threads = 1) {
    Start(std::move(signature), threads);
    Publish(1, 1, 10);
  }

  Call& Send(InferRequest request) {
    calls_.emplace_back();
    path_->Infer(std::move(request), calls_.back().Done());
    return calls_.back();
  }

  // Makes the compute thread wait at the gate with a request of its own, so that what is sent from
  // now on waits in the queue until gate_.Open(). The graph fails for an input of kUnlucky.
  Call& HoldComputeThread() {
    world_->on_forward = [this](absl::Span<const model::HostTensor> inputs) {
      gate_.Pass();
      for (const float value : FloatsOf(inputs[0].data.get(), inputs[0].size_bytes)) {
        if (value == kUnlucky) return absl::InternalError("thirteen");
      }
      return absl::OkStatus();
    };
    Call& held = Send(RowsOf(0));
    gate_.AwaitArrivals(1);
    return held;
  }

  ModelStatistics Statistics() const {
    ModelStatistics statistics;
    path_->FillStatistics(statistics);
    return statistics;
  }
  std::uint64_t Failed(const std::string& reason) const {
    return Statistics().requests_failed.at(reason);
  }

  std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  FakeClock clock_;
  Gate gate_;
  std::size_t outputs_ = 1;
  std::deque<Call> calls_;
  std::unique_ptr<RequestPath> path_;
};

// --- answers ---

TEST_F(RequestPathTest, AnswersALoneRequestAndNamesItsWeights) {
  Start(FakeSignature(8));
  Publish(100, 3, 10);
  Call& call = Send(RowsOf(7, 2));
  EXPECT_THAT(call.WaitValues(), ElementsAre(70, 70, 70, 70));
  const InferResult& result = *call.Wait();
  EXPECT_EQ(result.version, 100);
  EXPECT_EQ(result.generation, 3U);
  EXPECT_EQ(*result.weights_digest, "digest-100");
  EXPECT_EQ(result.outputs[0].name, "y");
  EXPECT_THAT(result.outputs[0].shape, ElementsAre(2, 2));
}

TEST_F(RequestPathTest, LoneAlignedSliceIsUsedWhereItLies) {
  StartServing(FakeSignature(8));
  InferRequest request = RowsOf(1);
  const std::byte* bytes = request.inputs[0].bytes[0].data();
  EXPECT_TRUE(Send(std::move(request)).WaitStatus().ok());
  EXPECT_THAT(world_->input_data(), ElementsAre(bytes));
}

TEST_F(RequestPathTest, WhatIsCopiedGoesStraightToWhereTheDeviceReadsIt) {
  std::vector<std::byte> device_memory(64);
  world_->allocate_input = [&](std::uint64_t size_bytes) {
    EXPECT_EQ(size_bytes, 16);
    return std::shared_ptr<std::byte>(device_memory.data(), [](std::byte*) {});
  };
  StartServing(FakeSignature(8));
  InferRequest request = RowsOf(1, 2);
  const absl::Span<const std::byte> whole = request.inputs[0].bytes[0];
  request.inputs[0].bytes = {whole.first(8), whole.subspan(8)};
  EXPECT_THAT(Send(std::move(request)).WaitValues(), ElementsAre(10, 10, 10, 10));
  EXPECT_THAT(world_->input_data(), ElementsAre(device_memory.data()));
  EXPECT_THAT(world_->page_locked(), ElementsAre(true));
  EXPECT_TRUE(Send(RowsOf(1)).WaitStatus().ok());  // Used where it lies.
  EXPECT_THAT(world_->page_locked(), ElementsAre(true, false));
}

TEST_F(RequestPathTest, SlicesArePutTogether) {
  StartServing(FakeSignature(8));
  InferRequest request = RowsOf(0, 2);
  const absl::Span<const std::byte> whole = request.inputs[0].bytes[0];
  std::vector<float> values = {1, 2, 3, 4};
  std::memcpy(const_cast<std::byte*>(whole.data()), values.data(), whole.size());
  request.inputs[0].bytes = {whole.subspan(0, 5), whole.subspan(5, 0), whole.subspan(5)};
  EXPECT_THAT(Send(std::move(request)).WaitValues(), ElementsAre(10, 20, 30, 40));
}

TEST_F(RequestPathTest, MisalignedBytesAreCopiedToAlignedOnes) {
  StartServing(FakeSignature(8));
  auto memory = std::make_shared<std::vector<float>>(3);
  auto* start = reinterpret_cast<std::byte*>(memory->data()) + 1;
  const std::vector<float> values = {5, 6};
  std::memcpy(start, values.data(), 8);
  InferRequest request = RowsOf(0);
  request.inputs[0].bytes = {absl::Span<const std::byte>(start, 8)};
  request.keep_alive = memory;
  EXPECT_THAT(Send(std::move(request)).WaitValues(), ElementsAre(50, 60));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(world_->input_data().front()) % 64, 0U);
}

TEST_F(RequestPathTest, OnlyRequestedOutputsInRequestedOrder) {
  Signature signature = FakeSignature(8);
  signature.outputs = {{"a", DType::kFloat32, {-1, 2}},
                       {"b", DType::kFloat32, {-1, 2}},
                       {"c", DType::kFloat32, {-1, 2}}};
  StartServing(signature);
  InferRequest request = RowsOf(1);
  request.outputs = {"c", "a"};
  Call& call = Send(std::move(request));
  ASSERT_TRUE(call.WaitStatus().ok());
  ASSERT_EQ(call.Wait()->outputs.size(), 2U);
  EXPECT_EQ(call.Wait()->outputs[0].name, "c");
  EXPECT_THAT(call.WaitValues(0), ElementsAre(12, 12));
  EXPECT_EQ(call.Wait()->outputs[1].name, "a");
  EXPECT_THAT(call.WaitValues(1), ElementsAre(10, 10));
}

TEST_F(RequestPathTest, AnswersOutliveTheModel) {
  StartServing(FakeSignature(8));
  Call& call = Send(RowsOf(2));
  ASSERT_TRUE(call.WaitStatus().ok());
  path_.reset();
  EXPECT_EQ(world_->live_models(), 0U);
  EXPECT_THAT(call.WaitValues(), ElementsAre(20, 20));
}

TEST_F(RequestPathTest, InputsMayComeInAnyOrder) {
  Signature signature = FakeSignature(8);
  signature.inputs.push_back({"z", DType::kFloat32, {-1, 1}});
  signature.outputs.push_back({"w", DType::kFloat32, {-1, 1}});
  StartServing(signature);
  InferRequest request;
  AddInput(request, "z", {1, 1}, {9});
  AddInput(request, "x", {1, 2}, {1, 2});
  Call& call = Send(std::move(request));
  EXPECT_THAT(call.WaitValues(0), ElementsAre(10, 20));
  EXPECT_THAT(call.WaitValues(1), ElementsAre(91));
}

// --- batches ---

TEST_F(RequestPathTest, WhatWaitsGoesInOneBatch) {
  StartServing(FakeSignature(8));
  Call& held = HoldComputeThread();
  Call& one = Send(RowsOf(1));
  Call& two = Send(RowsOf(2, 3));
  Call& three = Send(RowsOf(3, 2));
  gate_.Open();
  EXPECT_THAT(held.WaitValues(), ElementsAre(0, 0));
  EXPECT_THAT(one.WaitValues(), ElementsAre(10, 10));
  EXPECT_THAT(two.WaitValues(), ElementsAre(20, 20, 20, 20, 20, 20));
  EXPECT_THAT(three.WaitValues(), ElementsAre(30, 30, 30, 30));
  EXPECT_THAT(three.Wait()->outputs[0].shape, ElementsAre(2, 2));
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 6));
}

TEST_F(RequestPathTest, BatchStopsAtItsLargestSize) {
  StartServing(FakeSignature(4));
  HoldComputeThread();
  Send(RowsOf(1, 3));
  Send(RowsOf(2, 2));
  Send(RowsOf(3, 2));
  gate_.Open();
  for (Call& call : calls_) EXPECT_TRUE(call.WaitStatus().ok());
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 3, 4));
}

TEST_F(RequestPathTest, WithoutABatchDimensionRequestsRunOneByOneWithTheirShapes) {
  StartServing(FakeSignature(0));
  HoldComputeThread();
  Call& one = Send(RowsOf(1, 3));
  Call& two = Send(RowsOf(2, 2));
  gate_.Open();
  EXPECT_THAT(one.Wait()->outputs[0].shape, ElementsAre(3, 2));
  EXPECT_THAT(two.WaitValues(), ElementsAre(20, 20, 20, 20));
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 3, 2));
}

TEST_F(RequestPathTest, DifferentShapesNeverShareABatch) {
  Signature signature = FakeSignature(8);
  signature.inputs[0].shape = signature.outputs[0].shape = {-1, -1};
  StartServing(signature);
  HoldComputeThread();
  std::vector<Call*> calls;
  for (const std::int64_t width : {1, 3, 1, 3, 1}) {
    InferRequest request;
    AddInput(request, "x", {1, width}, std::vector<float>(static_cast<std::size_t>(width), 2));
    calls.push_back(&Send(std::move(request)));
  }
  gate_.Open();
  EXPECT_THAT(calls[0]->WaitValues(), ElementsAre(20));
  EXPECT_THAT(calls[1]->WaitValues(), ElementsAre(20, 20, 20));
  for (Call* call : calls) EXPECT_TRUE(call->WaitStatus().ok());
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 3, 2));
}

TEST_F(RequestPathTest, OneFailingRequestDoesNotFailItsNeighbours) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  Call& good = Send(RowsOf(1));
  Call& bad = Send(RowsOf(kUnlucky));
  Call& also_good = Send(RowsOf(2));
  gate_.Open();
  EXPECT_THAT(good.WaitValues(), ElementsAre(10, 10));
  EXPECT_THAT(also_good.WaitValues(), ElementsAre(20, 20));
  EXPECT_EQ(bad.WaitStatus().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(bad.WaitStatus()), HasSubstr("thirteen"));
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 3, 1, 1, 1));
  EXPECT_EQ(Failed("internal"), 1U);
}

TEST_F(RequestPathTest, OneModelMayUseSeveralThreadsAtOnce) {
  StartServing(FakeSignature(1), 2);
  HoldComputeThread();
  Send(RowsOf(1));
  gate_.AwaitArrivals(2);  // Both at the same time, or this never returns.
  gate_.Open();
  for (Call& call : calls_) EXPECT_TRUE(call.WaitStatus().ok());
}

TEST_F(RequestPathTest, PreferredSizeGoesBeforeTheDelayHasPassed) {
  Signature signature = FakeSignature(8);
  signature.batching.preferred_batch_sizes = {2};
  signature.batching.max_queue_delay = absl::Hours(1);
  StartServing(signature);
  Call& one = Send(RowsOf(1));
  EXPECT_EQ(Statistics().queued_requests, 1U);
  Call& two = Send(RowsOf(2));
  EXPECT_THAT(one.WaitValues(), ElementsAre(10, 10));
  EXPECT_THAT(two.WaitValues(), ElementsAre(20, 20));
  EXPECT_THAT(world_->batch_rows(), ElementsAre(2));
}

TEST_F(RequestPathTest, LoneRequestGoesWhenTheDelayHasPassed) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_delay = absl::Milliseconds(2);
  StartServing(signature);
  EXPECT_THAT(Send(RowsOf(1)).WaitValues(), ElementsAre(10, 10));
}

TEST_F(RequestPathTest, NothingWaitsForCompanyWhileDraining) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_delay = absl::Hours(1);
  StartServing(signature);
  Call& call = Send(RowsOf(1));
  path_->StopAdmitting(absl::UnavailableError("draining"));
  EXPECT_THAT(call.WaitValues(), ElementsAre(10, 10));
}

// --- what a graph may get wrong ---

TEST_F(RequestPathTest, OutputWithoutTheBatchsRowsIsInternal) {
  StartServing(FakeSignature(8));
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) {
    outputs[0] = MakeFloatTensor({1, 2}, {0, 0});
  };
  Call& call = Send(RowsOf(1, 3));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(call.WaitStatus()),
              AllOf(HasSubstr("output y"), HasSubstr("[1, 2]"), HasSubstr("3 rows")));
}

TEST_F(RequestPathTest, OutputOfAnotherTypeIsInternal) {
  StartServing(FakeSignature(8));
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) {
    outputs[0].dtype = DType::kInt32;
  };
  Call& call = Send(RowsOf(1));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(call.WaitStatus()), AllOf(HasSubstr("INT32"), HasSubstr("FP32")));
}

TEST_F(RequestPathTest, OutputWithTooFewBytesIsInternal) {
  StartServing(FakeSignature(8));
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) { outputs[0].size_bytes = 4; };
  EXPECT_EQ(Send(RowsOf(1)).WaitStatus().code(), absl::StatusCode::kInternal);
}

TEST_F(RequestPathTest, MissingOutputIsInternal) {
  StartServing(FakeSignature(8));
  world_->on_outputs = [](std::vector<model::HostTensor>& outputs) { outputs.clear(); };
  EXPECT_EQ(Send(RowsOf(1)).WaitStatus().code(), absl::StatusCode::kInternal);
}

TEST_F(RequestPathTest, CodesOfTheGraphThatMeanNothingToClientsAreInternal) {
  StartServing(FakeSignature(8));
  world_->on_forward = [](absl::Span<const model::HostTensor>) {
    return absl::ResourceExhaustedError("out of device memory");
  };
  Call& call = Send(RowsOf(1));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(call.WaitStatus()), HasSubstr("out of device memory"));
}

TEST_F(RequestPathTest, ShapesThatTheGraphRefusesAreInvalid) {
  StartServing(FakeSignature(8));
  world_->on_forward = [](absl::Span<const model::HostTensor>) {
    return absl::InvalidArgumentError("kernel larger than the image");
  };
  EXPECT_EQ(Send(RowsOf(1)).WaitStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Failed("invalid"), 1U);
}

// --- versions ---

TEST_F(RequestPathTest, UnavailableBeforeTheFirstCheckpoint) {
  Start(FakeSignature(8));
  Call& call = Send(RowsOf(1));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(call.WaitStatus()), AllOf(HasSubstr("no checkpoint yet"), HasSubstr("fake")));
  EXPECT_EQ(Failed("unavailable"), 1U);
}

TEST_F(RequestPathTest, UnloadedModelSaysWhyRatherThanNoCheckpoint) {
  Start(FakeSignature(8));
  path_->StopAdmitting(absl::UnavailableError("unloaded by an admin"));
  EXPECT_THAT(Message(Send(RowsOf(1)).WaitStatus()), HasSubstr("unloaded by an admin"));
}

TEST_F(RequestPathTest, UnknownVersionIsNotFoundAndNamesTheLoadedOnes) {
  StartServing(FakeSignature(8));
  Publish(5, 2, 20);
  Call& call = Send(ForVersion(3, RowsOf(1)));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(call.WaitStatus()), AllOf(HasSubstr("version 3"), HasSubstr("5, 1")));
}

TEST_F(RequestPathTest, PinnedRequestsGetTheirVersionAndShareNoBatchWithOthers) {
  StartServing(FakeSignature(8));
  Publish(2, 2, 20);
  HoldComputeThread();
  Call& newest = Send(RowsOf(1));
  Call& pinned = Send(ForVersion(1, RowsOf(1)));
  Call& newest_too = Send(RowsOf(2));
  gate_.Open();
  EXPECT_THAT(newest.WaitValues(), ElementsAre(20, 20));
  EXPECT_THAT(newest_too.WaitValues(), ElementsAre(40, 40));
  EXPECT_THAT(pinned.WaitValues(), ElementsAre(10, 10));
  EXPECT_EQ(pinned.Wait()->version, 1);
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 2, 1));
}

TEST_F(RequestPathTest, QueuedRequestsAreAnsweredByWhatIsServedWhenTheyRun) {
  StartServing(FakeSignature(8));
  Call& held = HoldComputeThread();
  Call& queued = Send(RowsOf(1));
  Publish(2, 2, 20);
  gate_.Open();
  EXPECT_EQ(held.Wait()->version, 1);
  EXPECT_EQ(queued.Wait()->version, 2);
  EXPECT_THAT(queued.WaitValues(), ElementsAre(20, 20));
}

TEST_F(RequestPathTest, VersionThatGoesWhileItsRequestWaitsIsNotFound) {
  StartServing(FakeSignature(8));
  Publish(2, 2, 20);
  HoldComputeThread();
  Call& pinned = Send(ForVersion(1, RowsOf(1)));
  Slot::Handle removed = path_->slot().Remove(1);
  EXPECT_TRUE(Slot::DestroyWhenUnused(removed, absl::InfiniteDuration()));
  gate_.Open();
  EXPECT_EQ(pinned.WaitStatus().code(), absl::StatusCode::kNotFound);
}

TEST_F(RequestPathTest, HandleIsLetGoBeforeTheAnswerIsGiven) {
  StartServing(FakeSignature(8));
  Slot::Handle removed = path_->slot().Remove(1);
  path_->slot().Publish(removed);
  long uses_when_answered = 0;
  Gate answered;
  path_->Infer(RowsOf(1), [&](absl::StatusOr<InferResult>) {
    uses_when_answered = removed.use_count();
    answered.Open();
  });
  answered.Pass();
  EXPECT_EQ(uses_when_answered, 3);  // Ours, and the slot's two.
}

// --- what is not run ---

TEST_F(RequestPathTest, PassedDeadlineIsRefusedAtOnce) {
  StartServing(FakeSignature(8));
  InferRequest request = RowsOf(1);
  request.deadline = clock_.Now();
  EXPECT_EQ(Send(std::move(request)).WaitStatus().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Failed("deadline"), 1U);
  EXPECT_EQ(world_->forwards(), 0U);
}

TEST_F(RequestPathTest, CancelledRequestIsRefusedAtOnce) {
  StartServing(FakeSignature(8));
  InferRequest request = RowsOf(1);
  request.cancelled = std::make_shared<std::atomic<bool>>(true);
  EXPECT_EQ(Send(std::move(request)).WaitStatus().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(Failed("cancelled"), 1U);
}

TEST_F(RequestPathTest, CallThatTheTransportCancelledAtItsDeadlineWasLate) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  InferRequest request = RowsOf(1);
  request.cancelled = cancelled;
  request.deadline = clock_.Now() + absl::Seconds(1);
  Call& call = Send(std::move(request));
  clock_.Advance(absl::Seconds(2));
  cancelled->store(true);
  gate_.Open();
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Failed("deadline"), 1U);
  EXPECT_EQ(Failed("cancelled"), 0U);
}

TEST_F(RequestPathTest, DeadlineThatPassesInTheQueueStopsTheWork) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  InferRequest late = RowsOf(1);
  late.deadline = clock_.Now() + absl::Seconds(1);
  InferRequest in_time = RowsOf(2);
  in_time.deadline = clock_.Now() + absl::Seconds(3);
  Call& late_call = Send(std::move(late));
  Call& in_time_call = Send(std::move(in_time));
  clock_.Advance(absl::Seconds(2));
  gate_.Open();
  EXPECT_EQ(late_call.WaitStatus().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(in_time_call.WaitValues(), ElementsAre(20, 20));
  EXPECT_THAT(world_->batch_rows(), ElementsAre(1, 1));
  EXPECT_EQ(Failed("deadline"), 1U);
}

TEST_F(RequestPathTest, CancellingInTheQueueStopsTheWork) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  InferRequest request = RowsOf(1);
  request.cancelled = cancelled;
  Call& call = Send(std::move(request));
  cancelled->store(true);
  gate_.Open();
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(world_->forwards(), 1U);
  EXPECT_EQ(Failed("cancelled"), 1U);
}

TEST_F(RequestPathTest, QueueTimeoutIsUnavailable) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  InferRequest request = RowsOf(1);
  request.queue_timeout = absl::Milliseconds(20);
  Call& call = Send(std::move(request));
  clock_.Advance(absl::Milliseconds(20));
  gate_.Open();
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(call.WaitStatus()), HasSubstr("20ms"));
  EXPECT_EQ(Failed("deadline"), 1U);
}

TEST_F(RequestPathTest, QueuePolicySaysHowLongARequestMayWait) {
  // What a request gets that asked for a timeout and has waited behind another.
  const auto after = [this](const config::QueuePolicy& policy, absl::Duration asked,
                            absl::Duration waited) {
    Gate gate;
    Signature signature = FakeSignature(8);
    signature.batching.levels = {policy};
    StartServing(signature);
    world_->on_forward = [&gate](absl::Span<const model::HostTensor>) {
      gate.Pass();
      return absl::OkStatus();
    };
    Send(RowsOf(0));
    gate.AwaitArrivals(1);
    InferRequest request = RowsOf(1);
    request.queue_timeout = asked;
    Call& call = Send(std::move(request));
    clock_.Advance(waited);
    gate.Open();
    EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
    return call.WaitStatus();
  };
  struct Row {
    absl::Duration by_policy;
    bool override;
    absl::Duration asked;
    absl::Duration wanted;
  };
  const Row rows[] = {
      {absl::Milliseconds(5), true, absl::InfiniteDuration(), absl::Milliseconds(5)},
      {absl::Milliseconds(5), true, absl::Milliseconds(3), absl::Milliseconds(3)},
      {absl::Milliseconds(5), true, absl::Milliseconds(9), absl::Milliseconds(5)},
      {absl::Milliseconds(5), false, absl::Milliseconds(3), absl::Milliseconds(5)},
      {absl::InfiniteDuration(), false, absl::Milliseconds(3), absl::Hours(24)},
  };
  for (const Row& row : rows) {
    config::QueuePolicy policy;
    policy.default_timeout = row.by_policy;
    policy.allow_timeout_override = row.override;
    EXPECT_TRUE(after(policy, row.asked, row.wanted - absl::Nanoseconds(1)).ok()) << row.asked;
    if (row.wanted >= absl::Hours(24)) continue;
    const absl::Status late = after(policy, row.asked, row.wanted);
    EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << row.asked;
    EXPECT_THAT(Message(late), HasSubstr(absl::FormatDuration(row.wanted)));
  }
}

TEST_F(RequestPathTest, PriorityDecidesWhoGoesFirst) {
  Signature signature = FakeSignature(1);
  signature.batching.levels.resize(3);
  signature.batching.default_level = 1;
  StartServing(signature);
  std::vector<float> order;
  world_->on_forward = [this, &order](absl::Span<const model::HostTensor> inputs) {
    gate_.Pass();
    order.push_back(FloatsOf(inputs[0].data.get(), inputs[0].size_bytes).front());
    return absl::OkStatus();
  };
  Send(RowsOf(100));
  gate_.AwaitArrivals(1);
  // None and one that there is not stand for the default.
  for (const std::uint64_t priority : {3U, 0U, 4U, 1U, 2U, 3U, 1U}) {
    InferRequest request = RowsOf(static_cast<float>(priority));
    request.priority = priority;
    Send(std::move(request));
  }
  gate_.Open();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_THAT(order, ElementsAre(100, 1, 1, 0, 4, 2, 3, 3));
}

TEST_F(RequestPathTest, BadRequestIsRefusedAndCounted) {
  StartServing(FakeSignature(8));
  EXPECT_EQ(Send(InferRequest()).WaitStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Failed("invalid"), 1U);
}

// --- on the caller's thread ---

class QuickRequestPathTest : public RequestPathTest {
 protected:
  static constexpr std::uint64_t kQuickBytes = 16384;

  void StartQuick(const Signature& signature) {
    world_->quick_bytes = kQuickBytes;
    world_->on_forward = [this](absl::Span<const model::HostTensor>) {
      ran_on_ = std::this_thread::get_id();
      return absl::OkStatus();
    };
    StartServing(signature);
  }
  bool RanHere(InferRequest request) {
    EXPECT_TRUE(Send(std::move(request)).WaitStatus().ok());
    EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
    return ran_on_ == std::this_thread::get_id();
  }

  std::thread::id ran_on_;
};

TEST_F(QuickRequestPathTest, RunsARequestOfAQuickGraph) {
  StartQuick(FakeSignature(8192));
  EXPECT_TRUE(RanHere(RowsOf(2)));
  EXPECT_TRUE(RanHere(RowsOf(2, 2048)));
  EXPECT_FALSE(RanHere(RowsOf(2, 2049))) << "more than kQuickBytes";
}

TEST_F(QuickRequestPathTest, AnswerMayAskAgain) {
  StartQuick(FakeSignature(8));
  Call second;
  path_->Infer(RowsOf(1), [&](absl::StatusOr<InferResult> result) {
    ASSERT_TRUE(result.ok());
    path_->Infer(RowsOf(2), second.Done());
  });
  EXPECT_THAT(second.WaitValues(), ElementsAre(20, 20));
}

TEST_F(QuickRequestPathTest, DrainWaitsForWhatRunsHere) {
  StartQuick(FakeSignature(8));
  world_->on_forward = [this](auto) {
    gate_.Pass();
    return absl::OkStatus();
  };
  Call call;
  std::thread client([&] { path_->Infer(RowsOf(2), call.Done()); });
  gate_.AwaitArrivals(1);
  path_->StopAdmitting(absl::UnavailableError("draining"));
  EXPECT_FALSE(path_->WaitIdle(absl::Now()));
  gate_.Open();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  client.join();
  EXPECT_THAT(call.WaitValues(), ElementsAre(20, 20));
}

TEST_F(QuickRequestPathTest, LeavesWhatMayWaitForCompanyToThePool) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_delay = absl::Milliseconds(1);
  StartQuick(signature);
  EXPECT_FALSE(RanHere(RowsOf(2)));
}

TEST_F(QuickRequestPathTest, RunsARequestBesideOneThatRuns) {
  StartQuick(FakeSignature(8));
  world_->on_forward = [this, here = std::this_thread::get_id()](auto) {
    if (std::this_thread::get_id() != here) gate_.Pass();
    return absl::OkStatus();
  };
  Call first;
  std::thread client([&] { path_->Infer(RowsOf(2), first.Done()); });
  gate_.AwaitArrivals(1);
  Call second;
  path_->Infer(RowsOf(3), second.Done());
  EXPECT_EQ(second.times(), 1);
  gate_.Open();
  client.join();
  EXPECT_THAT(first.WaitValues(), ElementsAre(20, 20));
  EXPECT_THAT(second.WaitValues(), ElementsAre(30, 30));
}

TEST_F(QuickRequestPathTest, LeavesARequestBehindOneThatWaitsToThePool) {
  StartQuick(FakeSignature(8192));
  world_->on_forward = [this, here = std::this_thread::get_id()](auto) {
    if (std::this_thread::get_id() == here) return absl::InternalError("run here");
    gate_.Pass();
    return absl::OkStatus();
  };
  Call& large = Send(RowsOf(4, 8192));  // The pool's, and keeps its only thread.
  gate_.AwaitArrivals(1);
  Call& waits = Send(RowsOf(4, 8192));
  Call& behind = Send(RowsOf(2));
  EXPECT_EQ(behind.times(), 0);
  gate_.Open();
  EXPECT_TRUE(large.WaitStatus().ok());
  EXPECT_TRUE(waits.WaitStatus().ok());
  EXPECT_THAT(behind.WaitValues(), ElementsAre(20, 20));
}

// --- bounds ---

TEST_F(RequestPathTest, FullQueueIsUnavailableAndNamesTheLimit) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_size = 2;
  StartServing(signature);
  HoldComputeThread();
  Send(RowsOf(1));
  Send(RowsOf(2));
  Call& refused = Send(RowsOf(3));
  EXPECT_EQ(refused.WaitStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused.WaitStatus()),
              AllOf(HasSubstr("2 requests wait"), HasSubstr("limit is 2"),
                    HasSubstr("batching.max_queue_size"), HasSubstr("try again")));
  EXPECT_EQ(Failed("rejected"), 1U);
  EXPECT_EQ(Statistics().queued_requests, 2U);
  gate_.Open();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_TRUE(Send(RowsOf(3)).WaitStatus().ok());
}

TEST_F(RequestPathTest, QueueIsBoundedInBytesToo) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_bytes = 40;
  StartServing(signature);
  HoldComputeThread();
  Call& queued = Send(RowsOf(1, 4));
  EXPECT_EQ(Statistics().queued_bytes, 32U);
  Call& refused = Send(RowsOf(2, 2));
  EXPECT_EQ(refused.WaitStatus().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(refused.WaitStatus()),
              AllOf(HasSubstr("32 bytes wait"), HasSubstr("has 16"), HasSubstr("limit is 40"),
                    HasSubstr("batching.max_queue_bytes")));
  gate_.Open();
  EXPECT_TRUE(queued.WaitStatus().ok());
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(Statistics().queued_bytes, 0U);
}

TEST_F(RequestPathTest, RequestThatNoQueueCouldHoldIsInvalid) {
  Signature signature = FakeSignature(8);
  signature.batching.max_queue_bytes = 40;
  StartServing(signature);
  Call& call = Send(RowsOf(1, 6));
  EXPECT_EQ(call.WaitStatus().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(call.WaitStatus()), AllOf(HasSubstr("48 bytes"), HasSubstr("40 bytes")));
}

// --- draining ---

TEST_F(RequestPathTest, DrainingRefusesNewRequestsAndAnswersQueuedOnes) {
  StartServing(FakeSignature(8));
  Call& held = HoldComputeThread();
  Call& queued = Send(RowsOf(1));
  path_->StopAdmitting(absl::UnavailableError("draining"));
  Call& refused = Send(RowsOf(2));
  EXPECT_EQ(refused.WaitStatus(), absl::UnavailableError("draining"));
  EXPECT_FALSE(path_->WaitIdle(absl::Now()));
  gate_.Open();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));
  EXPECT_EQ(held.times(), 1);
  EXPECT_EQ(queued.times(), 1);
  EXPECT_TRUE(queued.WaitStatus().ok());
  path_->ResumeAdmitting();
  EXPECT_TRUE(Send(RowsOf(2)).WaitStatus().ok());
}

TEST_F(RequestPathTest, IdleWhenNothingWasEverAsked) {
  StartServing(FakeSignature(8));
  EXPECT_TRUE(path_->WaitIdle(absl::InfinitePast()));
}

TEST_F(RequestPathTest, DestroyingAnswersWhatIsInFlight) {
  StartServing(FakeSignature(1));
  for (int i = 0; i < 100; ++i) Send(RowsOf(static_cast<float>(i)));
  path_.reset();
  for (Call& call : calls_) {
    EXPECT_EQ(call.times(), 1);
    EXPECT_TRUE(call.WaitStatus().ok());
  }
  EXPECT_THAT(world_->destroyed_on(), ElementsAre(std::this_thread::get_id()));
}

TEST_F(RequestPathTest, AnswerMayAskAgain) {
  StartServing(FakeSignature(8));
  Call second;
  path_->Infer(RowsOf(1), [&](absl::StatusOr<InferResult> result) {
    ASSERT_TRUE(result.ok());
    path_->Infer(RowsOf(2), second.Done());
  });
  EXPECT_THAT(second.WaitValues(), ElementsAre(20, 20));
}

// --- statistics ---

TEST_F(RequestPathTest, CountsRequestsRowsAndBatches) {
  StartServing(FakeSignature(8));
  HoldComputeThread();
  Send(RowsOf(1, 2));
  Send(RowsOf(2, 3));
  gate_.Open();
  for (Call& call : calls_) EXPECT_TRUE(call.WaitStatus().ok());

  const ModelStatistics model = Statistics();
  EXPECT_EQ(model.model, "fake");
  EXPECT_EQ(model.requests_succeeded, 3U);
  EXPECT_EQ(model.rows, 6U);
  EXPECT_EQ(model.batches, 2U);
  EXPECT_EQ(model.queued_requests, 0U);
  EXPECT_EQ(model.requests_failed.size(), 6U);
  EXPECT_EQ(model.request_seconds.counts.back(), 3U);
  EXPECT_EQ(model.queue_seconds.counts.back(), 3U);
  EXPECT_EQ(model.compute_seconds.counts.back(), 2U);
  EXPECT_EQ(model.batch_size.sum, 6);
  EXPECT_THAT(model.batch_size.bounds, ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(model.batch_size.counts, ElementsAre(1, 1, 1, 2, 2));

  const std::vector<VersionStatistics> rows = path_->VersionRows();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].version, 1);
  EXPECT_EQ(rows[0].inference_count, 6U);
  EXPECT_EQ(rows[0].execution_count, 2U);
  EXPECT_EQ(rows[0].success.count, 3U);
  EXPECT_EQ(rows[0].queue.count, 3U);
  EXPECT_EQ(rows[0].compute_infer.count, 3U);
  EXPECT_GE(rows[0].success.nanoseconds, rows[0].queue.nanoseconds);
  EXPECT_EQ(rows[0].last_inference, clock_.Now());
  ASSERT_EQ(rows[0].batches.size(), 2U);
  EXPECT_EQ(rows[0].batches[0].batch_size, 1U);
  EXPECT_EQ(rows[0].batches[1].batch_size, 5U);
  EXPECT_EQ(rows[0].batches[1].compute_infer.count, 1U);
}

TEST_F(RequestPathTest, QueueCountRisesOncePerRequestEvenWithoutAQueue) {
  StartServing(FakeSignature(0));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(Send(RowsOf(1)).WaitStatus().ok());
  EXPECT_EQ(path_->VersionRows()[0].queue.count, 3U);
}

TEST_F(RequestPathTest, FailuresOfAVersionAreCountedWithIt) {
  StartServing(FakeSignature(8));
  world_->on_forward = [](absl::Span<const model::HostTensor>) {
    return absl::InternalError("broken");
  };
  EXPECT_FALSE(Send(RowsOf(1)).WaitStatus().ok());
  const VersionStatistics row = path_->VersionRows()[0];
  EXPECT_EQ(row.fail.count, 1U);
  EXPECT_EQ(row.success.count, 0U);
  EXPECT_EQ(row.execution_count, 0U);
}

TEST_F(RequestPathTest, GenerationsOfOneVersionShareARow) {
  StartServing(FakeSignature(8));
  EXPECT_TRUE(Send(RowsOf(1)).WaitStatus().ok());
  Publish(1, 2, 20);
  EXPECT_TRUE(Send(RowsOf(1, 2)).WaitStatus().ok());
  Publish(2, 3, 30);
  const std::vector<VersionStatistics> rows = path_->VersionRows();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].version, 2);
  EXPECT_EQ(rows[0].inference_count, 0U);
  EXPECT_EQ(rows[1].version, 1);
  EXPECT_EQ(rows[1].inference_count, 3U);
  EXPECT_EQ(rows[1].success.count, 2U);
  EXPECT_EQ(rows[1].batches.size(), 2U);
}

// --- models take turns ---

TEST_F(RequestPathTest, BusyModelDoesNotStarveAnother) {
  const std::shared_ptr<ComputePool> pool = MakeComputePool(1);
  path_ = MakeRequestPath(FakeSignature(1), pool, clock_);
  Publish(1, 1, 10);
  const auto other_world = std::make_shared<FakeGraphWorld>();
  const std::unique_ptr<RequestPath> other = MakeRequestPath(FakeSignature(1), pool, clock_);
  other->slot().Publish(MakeVersion(other_world, 1, 1, 30));

  HoldComputeThread();
  for (int i = 0; i < 50; ++i) Send(RowsOf(1));
  std::uint64_t busy_runs_before = 0;
  other_world->on_forward = [&](absl::Span<const model::HostTensor>) {
    busy_runs_before = world_->forwards();
    return absl::OkStatus();
  };
  Call call;
  other->Infer(RowsOf(1), call.Done());
  gate_.Open();
  EXPECT_THAT(call.WaitValues(), ElementsAre(30, 30));
  EXPECT_LE(busy_runs_before, 2U);  // The one that was held, and one turn.
}

// --- swaps ---

// With all requests on compute threads, and with those that can on their own.
class RequestPathStressTest : public RequestPathTest,
                              public ::testing::WithParamInterface<std::uint64_t> {
 protected:
  RequestPathStressTest() { world_->quick_bytes = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(QuickBytes, RequestPathStressTest, ::testing::Values(0, 1 << 20),
                         [](const auto& bytes) { return bytes.param > 0 ? "Here" : "InThePool"; });

TEST_P(RequestPathStressTest, EveryAnswerIsOfTheVersionThatItNamesWhileVersionsAreSwapped) {
  constexpr int kClients = 8;
  constexpr int kRequests = 2000;
  // Products stay below 2^24, where float32 is exact.
  const auto weight_of = [](std::uint64_t version) {
    return static_cast<float>(1 + version % 10007);
  };
  Start(FakeSignature(16), 3);
  Publish(1, 1, weight_of(1));

  std::atomic<int> running{kClients};
  std::atomic<int> wrong{0};
  // Clients go on until so many versions were swapped in under them.
  constexpr std::uint64_t kVersions = 10;
  std::atomic<std::uint64_t> published = 1;
  std::atomic<std::uint64_t> sent = 0;
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([&, client] {
      for (int i = 0; i < kRequests || published.load() <= kVersions; ++i) {
        ++sent;
        const auto value = static_cast<float>(1 + (client + i) % 1000);
        Call call;
        path_->Infer(RowsOf(value, 1 + i % 3), call.Done());
        const absl::StatusOr<InferResult>& result = call.Wait();
        if (!result.ok()) {
          ++wrong;
          continue;
        }
        for (const float y : call.WaitValues()) {
          if (y != value * weight_of(static_cast<std::uint64_t>(result->version))) ++wrong;
        }
      }
      --running;
    });
  }

  // The publishing side: one new version after the other, the oldest retired and destroyed here.
  std::uint64_t version = 1;
  std::uint64_t generation = 1;
  std::deque<std::uint64_t> loaded = {generation};
  while (running.load() > 0) {
    ++version;
    Publish(static_cast<std::int64_t>(version), ++generation, weight_of(version));
    published = version;
    if (version % 5 == 0) {
      // The one before comes back, under a number of its own.
      const std::uint64_t before = std::exchange(loaded.back(), ++generation);
      ASSERT_TRUE(path_->slot().MakeCurrent(before, generation));
      loaded.push_back(generation - 1);
    } else {
      loaded.push_back(generation);
    }
    if (loaded.size() > 2) {
      Slot::Handle old = path_->slot().Remove(loaded.front());
      loaded.pop_front();
      ASSERT_NE(old, nullptr);
      ASSERT_TRUE(Slot::DestroyWhenUnused(old, absl::InfiniteDuration()));
    }
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(version, kVersions);
  EXPECT_EQ(Statistics().requests_succeeded, sent.load());
  EXPECT_THAT(world_->destroyed_on(), ::testing::Each(std::this_thread::get_id()));
}

TEST_P(RequestPathStressTest, EveryRequestIsAnsweredOnceWhateverHappensToIt) {
  constexpr int kClients = 4;
  constexpr int kRequests = 1000;
  Signature signature = FakeSignature(8);
  signature.inputs[0].shape = signature.outputs[0].shape = {-1, -1};
  signature.batching.max_queue_size = 64;
  signature.batching.levels.resize(2);
  signature.batching.levels[1].delay_late = true;
  StartServing(signature, 2);
  Publish(2, 2, 20);
  world_->on_forward = [](absl::Span<const model::HostTensor> inputs) {
    for (const float value : FloatsOf(inputs[0].data.get(), inputs[0].size_bytes)) {
      if (value == kUnlucky) return absl::InternalError("thirteen");
    }
    return absl::OkStatus();
  };

  std::vector<std::deque<Call>> calls(kClients);
  std::vector<std::thread> clients;
  for (std::deque<Call>& mine : calls) {
    clients.emplace_back([this, &mine] {
      for (int i = 0; i < kRequests; ++i) {
        InferRequest request;
        const auto values = static_cast<std::size_t>((1 + i % 8) * (1 + i % 3));
        AddInput(request, "x", {1 + i % 8, 1 + i % 3},
                 std::vector<float>(values, static_cast<float>(i % 20)));
        if (i % 5 == 0) request.version = 1 + i % 3;  // 3 is not loaded.
        if (i % 7 == 0) request.deadline = clock_.Now() + absl::Milliseconds(i % 4);
        if (i % 6 == 0) request.queue_timeout = absl::Milliseconds(i % 4);
        request.priority = static_cast<std::uint64_t>(i % 3);
        const auto cancelled = std::make_shared<std::atomic<bool>>(false);
        request.cancelled = cancelled;
        mine.emplace_back();
        path_->Infer(std::move(request), mine.back().Done());
        if (i % 11 == 0) cancelled->store(true);
        if (i % 50 == 0) clock_.Advance(absl::Milliseconds(1));
        if (i % 30 == 0) mine.back().Wait();
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(path_->WaitIdle(absl::InfiniteFuture()));

  std::uint64_t succeeded = 0;
  std::uint64_t unlucky = 0;
  for (std::deque<Call>& mine : calls) {
    for (std::size_t i = 0; i < mine.size(); ++i) {
      ASSERT_EQ(mine[i].times(), 1);
      const absl::StatusOr<InferResult>& result = mine[i].Wait();
      if (absl::IsInternal(result.status())) ++unlucky;
      if (!result.ok()) continue;
      ++succeeded;
      const auto expected = static_cast<float>(i % 20) * static_cast<float>(10 * result->version);
      EXPECT_THAT(mine[i].WaitValues(), ::testing::Each(expected));
      EXPECT_THAT(result->outputs[0].shape, ElementsAre(1 + i % 8, 1 + i % 3));
    }
  }
  const ModelStatistics statistics = Statistics();
  std::uint64_t failed = 0;
  for (const auto& [reason, count] : statistics.requests_failed) failed += count;
  EXPECT_EQ(statistics.requests_succeeded, succeeded);
  EXPECT_EQ(succeeded + failed, static_cast<std::uint64_t>(kClients * kRequests));
  EXPECT_GT(succeeded, 0U);
  EXPECT_EQ(Failed("internal"), unlucky);
  EXPECT_EQ(statistics.queued_requests, 0U);
  EXPECT_EQ(statistics.queued_bytes, 0U);
}

}  // namespace
}  // namespace relight::serving
