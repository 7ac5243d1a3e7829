// A graph without LibTorch that a test can hold still, make fail and watch.
//
// It has one weight, "w" (one float32, or more of which the first counts), and answers y = x * w
// element by element: x is [-1, 2] or as the test says. Small integers stay exact, so an answer
// tells which weights gave it.
#ifndef RELIGHT_TESTS_SERVER_SERVING_FAKE_GRAPH_H_
#define RELIGHT_TESTS_SERVER_SERVING_FAKE_GRAPH_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "server/model/graph.h"
#include "server/model/graph_factory.h"

namespace relight::serving {

// What all graphs and models of one test share. Thread-safe; the hooks are set before use.
class FakeGraphWorld {
 public:
  // Called by each Forward before it computes, with no lock held; an error is returned from it.
  // May wait (see Gate).
  std::function<absl::Status(absl::Span<const model::HostTensor>)> on_forward;
  // Called by each Bind with the weight's value; an error is returned from it.
  std::function<absl::Status(float)> on_bind;
  // Changes what Forward returns, to return what a broken graph would.
  std::function<void(std::vector<model::HostTensor>&)> on_outputs;
  // What BoundModel::AllocateInput returns.
  std::function<std::shared_ptr<std::byte>(std::uint64_t)> allocate_input;
  // Called by WarmUp.
  std::function<void()> on_warm_up;
  // How many elements "w" has.
  std::int64_t weight_elements = 1;
  // Up to how many bytes of input a Forward is quick.
  std::uint64_t quick_bytes = 0;

  std::uint64_t forwards() const { return forwards_.load(); }
  std::uint64_t live_models() const { return live_models_.load(); }

  // First dimensions of the batches so far, in the order in which Forward was entered.
  std::vector<std::int64_t> batch_rows() const {
    MutexLock lock(mutex_);
    return batch_rows_;
  }
  // Data pointers of the first input, likewise.
  std::vector<const std::byte*> input_data() const {
    MutexLock lock(mutex_);
    return input_data_;
  }
  // Whether the first input's memory is page-locked, likewise.
  std::vector<bool> page_locked() const {
    MutexLock lock(mutex_);
    return page_locked_;
  }
  // Where the weight of the last Bind lies, in its version's block.
  const std::byte* weight_data() const { return weight_data_.load(); }
  // Threads on which models were destroyed.
  std::vector<std::thread::id> destroyed_on() const {
    MutexLock lock(mutex_);
    return destroyed_on_;
  }

  void ForwardEntered(const model::HostTensor& input) {
    ++forwards_;
    MutexLock lock(mutex_);
    batch_rows_.push_back(input.shape.empty() ? 1 : input.shape.front());
    input_data_.push_back(input.data.get());
    page_locked_.push_back(input.page_locked);
  }
  void WeightBound(const void* data) { weight_data_ = static_cast<const std::byte*>(data); }
  void ModelCreated() { ++live_models_; }
  void ModelDestroyed() {
    --live_models_;
    MutexLock lock(mutex_);
    destroyed_on_.push_back(std::this_thread::get_id());
  }

 private:
  std::atomic<std::uint64_t> forwards_{0};
  std::atomic<std::uint64_t> live_models_{0};
  std::atomic<const std::byte*> weight_data_{nullptr};
  mutable Mutex mutex_;
  std::vector<std::int64_t> batch_rows_ ABSL_GUARDED_BY(mutex_);
  std::vector<const std::byte*> input_data_ ABSL_GUARDED_BY(mutex_);
  std::vector<bool> page_locked_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread::id> destroyed_on_ ABSL_GUARDED_BY(mutex_);
};

// Holds whoever passes until it is opened. Thread-safe.
class Gate {
 public:
  // Waits until Open; returns at once from then on.
  void Pass() {
    MutexLock lock(mutex_);
    ++arrived_;
    changed_.SignalAll();
    while (!open_) changed_.Wait(mutex_);
  }
  void Open() {
    MutexLock lock(mutex_);
    open_ = true;
    changed_.SignalAll();
  }
  // Returns once `count` have come to Pass.
  void AwaitArrivals(int count) {
    MutexLock lock(mutex_);
    while (arrived_ < count) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Row-major float32 values in memory of their own.
inline model::HostTensor MakeFloatTensor(std::vector<std::int64_t> shape,
                                         const std::vector<float>& values) {
  const std::size_t size_bytes = values.size() * sizeof(float);
  std::shared_ptr<std::byte> data(
      static_cast<std::byte*>(::operator new(std::max<std::size_t>(size_bytes, 1))),
      [](std::byte* bytes) { ::operator delete(bytes); });
  if (size_bytes > 0) std::memcpy(data.get(), values.data(), size_bytes);
  return {DType::kFloat32, std::move(shape), std::move(data), size_bytes};
}

inline std::vector<float> FloatsOf(const std::byte* data, std::uint64_t size_bytes) {
  std::vector<float> values(size_bytes / sizeof(float));
  if (!values.empty()) std::memcpy(values.data(), data, values.size() * sizeof(float));
  return values;
}

class FakeBoundModel final : public model::BoundModel {
 public:
  FakeBoundModel(std::shared_ptr<FakeGraphWorld> world, float weight, std::size_t outputs,
                 std::shared_ptr<const void> keep_alive = nullptr)
      : world_(std::move(world)),
        weight_(weight),
        outputs_(outputs),
        keep_alive_(std::move(keep_alive)) {
    world_->ModelCreated();
  }
  ~FakeBoundModel() override { world_->ModelDestroyed(); }

  // Output i is input min(i, last) times w, plus i.
  absl::StatusOr<std::vector<model::HostTensor>> Forward(
      absl::Span<const model::HostTensor> inputs) const override {
    world_->ForwardEntered(inputs.front());
    if (world_->on_forward) {
      const absl::Status status = world_->on_forward(inputs);
      if (!status.ok()) return status;
    }
    std::vector<model::HostTensor> outputs;
    for (std::size_t i = 0; i < outputs_; ++i) {
      const model::HostTensor& input = inputs[std::min(i, inputs.size() - 1)];
      std::vector<float> values = FloatsOf(input.data.get(), input.size_bytes);
      for (float& value : values) value = value * weight_ + static_cast<float>(i);
      outputs.push_back(MakeFloatTensor(input.shape, values));
    }
    if (world_->on_outputs) world_->on_outputs(outputs);
    return outputs;
  }

  absl::StatusOr<std::vector<model::HostTensor>> WarmUp(
      absl::Span<const model::HostTensor> inputs) const override {
    if (world_->on_warm_up) world_->on_warm_up();
    return Forward(inputs);
  }

  std::shared_ptr<std::byte> AllocateInput(std::uint64_t size_bytes) const override {
    return world_->allocate_input ? world_->allocate_input(size_bytes) : nullptr;
  }

  bool IsQuick(std::uint64_t input_bytes) const override {
    return input_bytes <= world_->quick_bytes;
  }

 private:
  const std::shared_ptr<FakeGraphWorld> world_;
  const float weight_;
  const std::size_t outputs_;
  const std::shared_ptr<const void> keep_alive_;
};

class FakeGraph final : public model::Graph {
 public:
  explicit FakeGraph(std::shared_ptr<FakeGraphWorld> world)
      : FakeGraph(std::move(world), {{"x", DType::kFloat32, {-1, 2}}},
                  {{"y", DType::kFloat32, {-1, 2}}}) {}
  FakeGraph(std::shared_ptr<FakeGraphWorld> world, std::vector<TensorSpec> inputs,
            std::vector<TensorSpec> outputs)
      : world_(std::move(world)), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {}

  const std::vector<TensorSpec>& inputs() const override { return inputs_; }
  const std::vector<TensorSpec>& outputs() const override { return outputs_; }
  const std::vector<ParameterSpec>& parameters() const override { return parameters_; }
  const std::string& device() const override { return device_; }

  absl::StatusOr<std::unique_ptr<model::BoundModel>> Bind(model::BindRequest request) override {
    if (request.weights.size() != 1 || request.weights.front().name != "w") {
      return absl::InvalidArgumentError("the fake graph needs exactly the weight w");
    }
    float weight = 0;
    std::memcpy(&weight, request.weights.front().data, sizeof(weight));
    world_->WeightBound(request.weights.front().data);
    if (world_->on_bind) {
      const absl::Status status = world_->on_bind(weight);
      if (!status.ok()) return status;
    }
    return std::make_unique<FakeBoundModel>(world_, weight, outputs_.size(),
                                            std::move(request.keep_alive));
  }

 private:
  const std::shared_ptr<FakeGraphWorld> world_;
  const std::vector<TensorSpec> inputs_;
  const std::vector<TensorSpec> outputs_;
  const std::vector<ParameterSpec> parameters_ = {
      {"w", {world_->weight_elements}, DType::kFloat32}};
  const std::string device_ = "cpu";
};

// Makes fake graphs with the signature that the config gives (else x and y, both [-1, 2]).
class FakeGraphFactory final : public model::GraphFactory {
 public:
  explicit FakeGraphFactory(std::shared_ptr<FakeGraphWorld> world) : world_(std::move(world)) {}

  // Bytes of all host memory that was asked for so far.
  std::uint64_t allocated_bytes() const { return allocated_bytes_.load(); }
  // Called by each Create; an error is returned from it. Set before use.
  std::function<absl::Status(const config::ModelConfig&)> on_create;

  absl::StatusOr<std::unique_ptr<model::Graph>> Create(const config::ModelConfig& config) override {
    if (on_create) {
      const absl::Status status = on_create(config);
      if (!status.ok()) return status;
    }
    if (config.inputs.empty() || config.outputs.empty()) return std::make_unique<FakeGraph>(world_);
    return std::make_unique<FakeGraph>(world_, config.inputs, config.outputs);
  }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(const std::string&,
                                                          std::size_t size_bytes) override {
    constexpr std::size_t kAlignment = 64;
    const std::size_t rounded =
        (std::max<std::size_t>(size_bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
    auto* bytes = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
    if (bytes == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size_bytes, " bytes"));
    }
    std::memset(bytes, 0, rounded);
    allocated_bytes_ += rounded;
    return std::shared_ptr<std::byte>(bytes, [](std::byte* memory) { std::free(memory); });
  }

 private:
  const std::shared_ptr<FakeGraphWorld> world_;
  std::atomic<std::uint64_t> allocated_bytes_{0};
};

}  // namespace relight::serving

#endif  // RELIGHT_TESTS_SERVER_SERVING_FAKE_GRAPH_H_
