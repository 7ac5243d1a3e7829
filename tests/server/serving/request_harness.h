// Sends requests to a RequestPath over the fake graph and waits for the answers.
#ifndef RELIGHT_TESTS_SERVER_SERVING_REQUEST_HARNESS_H_
#define RELIGHT_TESTS_SERVER_SERVING_REQUEST_HARNESS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/serving/infer.h"
#include "server/serving/request_path.h"
#include "tests/server/serving/fake_graph.h"

namespace relight::serving {

// One answer to come. Thread-safe.
class Call {
 public:
  InferDone Done() {
    return [this](absl::StatusOr<InferResult> result) {
      MutexLock lock(mutex_);
      ++times_;
      result_ = std::move(result);
      answered_.SignalAll();
    };
  }
  // Waits for the answer.
  const absl::StatusOr<InferResult>& Wait() {
    MutexLock lock(mutex_);
    while (times_ == 0) answered_.Wait(mutex_);
    return result_;
  }
  absl::Status WaitStatus() { return Wait().status(); }
  // Values of an output; empty where the call failed.
  std::vector<float> WaitValues(std::size_t output = 0) {
    const absl::StatusOr<InferResult>& result = Wait();
    if (!result.ok()) return {};
    const OutputTensor& tensor = result->outputs[output];
    return FloatsOf(tensor.data.get(), tensor.size_bytes);
  }
  int times() const {
    MutexLock lock(mutex_);
    return times_;
  }

 private:
  mutable Mutex mutex_;
  CondVar answered_;
  int times_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::StatusOr<InferResult> result_;
};

// Adds a float32 input whose bytes the request keeps alive.
inline void AddInput(InferRequest& request, std::string name, std::vector<std::int64_t> shape,
                     std::vector<float> values) {
  struct Bytes {
    std::vector<float> values;
    std::shared_ptr<const void> before;
  };
  auto bytes = std::make_shared<Bytes>(Bytes{std::move(values), request.keep_alive});
  InputTensor input;
  input.name = std::move(name);
  input.shape = std::move(shape);
  input.bytes.push_back({reinterpret_cast<const std::byte*>(bytes->values.data()),
                         bytes->values.size() * sizeof(float)});
  request.inputs.push_back(std::move(input));
  request.keep_alive = std::move(bytes);
}

// `rows` rows of x: [value, value].
inline InferRequest RowsOf(float value, std::int64_t rows = 1) {
  InferRequest request;
  AddInput(request, "x", {rows, 2}, std::vector<float>(static_cast<std::size_t>(rows) * 2, value));
  return request;
}

inline InferRequest ForVersion(std::int64_t version, InferRequest request) {
  request.version = version;
  return request;
}

inline Signature FakeSignature(std::int64_t max_batch_size) {
  Signature signature;
  signature.model = "fake";
  signature.inputs = {{"x", DType::kFloat32, {-1, 2}}};
  signature.outputs = {{"y", DType::kFloat32, {-1, 2}}};
  signature.batching.max_batch_size = max_batch_size;
  return signature;
}

inline Slot::Handle MakeVersion(const std::shared_ptr<FakeGraphWorld>& world, std::int64_t version,
                                std::uint64_t generation, float weight, std::size_t outputs = 1) {
  auto served = std::make_shared<ServedVersion>();
  served->version = version;
  served->generation = generation;
  served->weights_digest = std::make_shared<const std::string>("digest-" + std::to_string(version));
  served->model = std::make_shared<FakeBoundModel>(world, weight, outputs);
  served->counters = MakeVersionCounters();
  return served;
}

}  // namespace relight::serving

#endif  // RELIGHT_TESTS_SERVER_SERVING_REQUEST_HARNESS_H_
