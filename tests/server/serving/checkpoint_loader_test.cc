#include "server/serving/checkpoint_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <new>

#include "tests/paths.h"
#include "tests/server/serving/checkpoint_files.h"
#include "tests/server/serving/fake_graph.h"
#include "tests/storage/temp_folder.h"

namespace relight::serving {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// SimpleNet(10, 5, 2) as far as loading goes: it keeps what it was bound to.
class SimpleNetGraph final : public model::Graph {
 public:
  const std::vector<TensorSpec>& inputs() const override { return none_; }
  const std::vector<TensorSpec>& outputs() const override { return none_; }
  const std::vector<ParameterSpec>& parameters() const override { return parameters_; }
  const std::string& device() const override { return device_; }
  absl::StatusOr<std::unique_ptr<model::BoundModel>> Bind(model::BindRequest request) override {
    if (!on_bind.ok()) return on_bind;
    bound = request.weights;
    return std::make_unique<FakeBoundModel>(world_, 1.0F, 1, request.keep_alive);
  }

  absl::Status on_bind;
  std::vector<model::WeightView> bound;

 private:
  const std::shared_ptr<FakeGraphWorld> world_ = std::make_shared<FakeGraphWorld>();
  const std::vector<TensorSpec> none_ = {};
  const std::vector<ParameterSpec> parameters_ = {
      {"fc1.weight", {5, 10}}, {"fc1.bias", {5}}, {"fc2.weight", {2, 5}}, {"fc2.bias", {2}}};
  const std::string device_ = "cpu";
};

class CheckpointLoaderTest : public ::testing::Test {
 protected:
  static std::string Good(const std::string& name) {
    return std::string(RELIGHT_TEST_DATA) + "/good/" + name;
  }

  LoadResult Load(LoadOrder order) {
    order.version = 3;
    order.generation = 7;
    if (listed_.has_value()) {
      order.listed = *listed_;
    } else if (const auto listed = storage::IdentifyFile(order.path); listed.ok()) {
      order.listed = *listed;
    }
    const LoadTools tools{
        config_, graph_,
        [this](std::size_t size) { return arena_.Acquire(size, absl::Seconds(0)); },
        [this](const ServedVersion&, std::int64_t batch_size) {
          warmed_up_.push_back(batch_size);
          return on_warm_up_;
        },
        accept_,
        hooks_};
    return LoadCheckpoint(order, tools);
  }
  LoadResult Load(const std::string& path) { return Load(LoadOrder{.path = path}); }

  std::optional<storage::FileIdentity> listed_;  // Absent: it is as it was when it was listed.
  config::ModelConfig config_;
  SimpleNetGraph graph_;
  FakeGraphFactory memory_{nullptr};
  Arena arena_{memory_, "cpu", 2};
  storage::LoadHooks hooks_;
  absl::Status on_warm_up_;
  std::function<absl::Status(const ServedVersion&)> accept_;
  std::vector<std::int64_t> warmed_up_;
};

TEST_F(CheckpointLoaderTest, LoadsTheWaysOfSavingInTheWild) {
  for (const char* file : {"model_state.pth", "checkpoint.pth", "entire_model.pth",
                           "model_state_legacy.pth", "entire_model_legacy.pth", "ddp_prefixed.pth",
                           "compiled_prefixed.pth", "model.safetensors"}) {
    const LoadResult result = Load(Good(file));
    ASSERT_EQ(result.verdict, Verdict::kServed) << file << ": " << result.status;
    EXPECT_EQ(result.loaded->served->version, 3);
    EXPECT_EQ(result.loaded->served->generation, 7u);
    EXPECT_EQ(graph_.bound.size(), 4u) << file;
    EXPECT_EQ(result.phases.size(), 4u);
  }
}

TEST_F(CheckpointLoaderTest, KnownDigestIsUnchangedAndNotBound) {
  LoadOrder order{.path = Good("model_state.pth")};
  order.unchanged = Load(order).loaded->digest;
  graph_.bound.clear();
  const LoadResult result = Load(order);
  EXPECT_EQ(result.verdict, Verdict::kUnchanged);
  EXPECT_TRUE(result.status.ok());
  EXPECT_TRUE(graph_.bound.empty());
  EXPECT_TRUE(arena_.Acquire(1, absl::ZeroDuration()).ok()) << "the block is free again";
}

TEST_F(CheckpointLoaderTest, FilesWithoutChecksumsMustBeSettled) {
  for (const char* file : {"model.safetensors", "model_state_legacy.pth"}) {
    const LoadResult result = Load(LoadOrder{.path = Good(file), .settled = false});
    EXPECT_EQ(result.verdict, Verdict::kUnsettled) << file;
    EXPECT_TRUE(result.identity.has_value());
  }
  EXPECT_EQ(Load(LoadOrder{.path = Good("model_state.pth"), .settled = false}).verdict,
            Verdict::kServed);
}

TEST_F(CheckpointLoaderTest, TruncatedFileIsTornAndAnotherNetIsRefused) {
  const storage::TempFolder folder;
  std::filesystem::copy_file(Good("model_state.pth"), folder.Path("a.pth"));
  std::filesystem::resize_file(folder.Path("a.pth"), 700);
  EXPECT_EQ(Load(folder.Path("a.pth")).verdict, Verdict::kTorn);
  const LoadResult other = Load(Good("conv_bn_state.pth"));
  EXPECT_EQ(other.verdict, Verdict::kRefused);
  EXPECT_EQ(other.status.code(), absl::StatusCode::kInvalidArgument);
  for (const char* name : {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}) {
    EXPECT_THAT(std::string(other.status.message()), HasSubstr(name));
  }
}

TEST_F(CheckpointLoaderTest, MissingFileMayComeBack) {
  const LoadResult result = Load("/nowhere/a.pth");
  EXPECT_EQ(result.verdict, Verdict::kTransient);
  EXPECT_FALSE(result.identity.has_value());
}

TEST_F(CheckpointLoaderTest, AnswersAreLookedAtAfterTheWarmUp) {
  std::vector<std::int64_t> warm_ups_before;
  accept_ = [&](const ServedVersion& version) {
    EXPECT_EQ(version.version, 3);
    warm_ups_before = warmed_up_;
    return absl::OkStatus();
  };
  config_.warm_up.batch_sizes = {1, 4};
  const LoadResult good = Load(Good("model_state.pth"));
  EXPECT_EQ(good.verdict, Verdict::kServed);
  EXPECT_THAT(warm_ups_before, ElementsAre(1, 4));
  EXPECT_EQ(good.phases.back().first, "accept");
  accept_ = [](const ServedVersion&) { return absl::FailedPreconditionError("0.82, not 0.11"); };
  const LoadResult bad = Load(Good("model_state.pth"));
  EXPECT_EQ(bad.verdict, Verdict::kRefused);
  EXPECT_THAT(std::string(bad.status.message()), HasSubstr("0.82"));
  EXPECT_FALSE(bad.loaded.has_value());
}

TEST_F(CheckpointLoaderTest, WhatTheGraphRefusesIsRefusedAndWhatTheDeviceLacksMayPass) {
  graph_.on_bind = absl::InvalidArgumentError("cannot be folded");
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kRefused);
  graph_.on_bind = absl::InternalError("no kernel");
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kRefused);
  for (const absl::Status& status :
       {absl::ResourceExhaustedError("no memory"), absl::UnavailableError("device error")}) {
    graph_.on_bind = status;
    EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kTransient);
  }
  EXPECT_TRUE(arena_.Acquire(1, absl::ZeroDuration()).ok()) << "the block is free again";
}

TEST_F(CheckpointLoaderTest, WarmUpThatFailsEndsTheLoad) {
  config_.warm_up.batch_sizes = {1, 8};
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kServed);
  EXPECT_THAT(warmed_up_, ElementsAre(1, 8));
  on_warm_up_ = absl::FailedPreconditionError("the output is not what the config promises");
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kRefused);
}

TEST_F(CheckpointLoaderTest, WarmGraphRunsOnlyTheSmallestBatch) {
  config_.warm_up.batch_sizes = {8, 1, 4};
  const LoadOrder order{.path = Good("model_state.pth"), .graph_is_warm = true};
  EXPECT_EQ(Load(order).verdict, Verdict::kServed);
  EXPECT_THAT(warmed_up_, ElementsAre(1));
}

TEST_F(CheckpointLoaderTest, WarmTorchScriptGraphPlansAnewForEveryBatch) {
  config_.warm_up.batch_sizes = {8, 1, 4};
  config_.graph = config::TorchScriptGraph{};
  const LoadOrder order{.path = Good("model_state.pth"), .graph_is_warm = true};
  EXPECT_EQ(Load(order).verdict, Verdict::kServed);
  EXPECT_THAT(warmed_up_, ElementsAre(8, 1, 4));
}

TEST_F(CheckpointLoaderTest, MemoryThatCannotBeHadMayComeBack) {
  const auto one = *arena_.Acquire(1, absl::ZeroDuration());
  const auto two = *arena_.Acquire(1, absl::ZeroDuration());
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kTransient);
}

TEST_F(CheckpointLoaderTest, HookEndsTheLoad) {
  hooks_.between_chunks = [] { return absl::CancelledError("no longer wanted"); };
  EXPECT_EQ(Load(Good("model_state.pth")).status.code(), absl::StatusCode::kCancelled);
}

TEST_F(CheckpointLoaderTest, FileThatIsWrittenToWhileItIsReadIsTorn) {
  const storage::TempFolder folder;
  std::filesystem::copy_file(Good("model_state.pth"), folder.Path("a.pth"));
  hooks_.between_chunks = [&] {
    folder.Write("a.pth", "someone writes over it");
    return absl::OkStatus();
  };
  EXPECT_EQ(Load(folder.Path("a.pth")).verdict, Verdict::kTorn);
}

TEST_F(CheckpointLoaderTest, FileThatChangedSinceItWasListedIsNotSettled) {
  listed_ = *storage::IdentifyFile(Good("model.safetensors"));
  listed_->modified -= absl::Hours(1);
  EXPECT_EQ(Load(Good("model.safetensors")).verdict, Verdict::kUnsettled);
  listed_ = *storage::IdentifyFile(Good("model_state.pth"));
  listed_->modified -= absl::Hours(1);
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kServed) << "checksums tell";
}

TEST_F(CheckpointLoaderTest, RunningOutOfMemoryEndsTheLoadAlone) {
  hooks_.between_chunks = []() -> absl::Status { throw std::bad_alloc(); };
  const LoadResult result = Load(Good("model_state.pth"));
  EXPECT_EQ(result.verdict, Verdict::kTransient);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("out of memory"));
}

TEST_F(CheckpointLoaderTest, ChecksumsMayBeRequired) {
  config_.checkpoints.require_crc = true;
  const LoadResult result = Load(Good("model.safetensors"));
  EXPECT_THAT(std::string(result.status.message()), HasSubstr("CRC"));
  EXPECT_EQ(result.verdict, Verdict::kRefused) << "waiting gives it none";
  EXPECT_EQ(Load(Good("model_state.pth")).verdict, Verdict::kServed);
}

}  // namespace
}  // namespace relight::serving
