// What the tests of the model layer share: tensors and weights from JSON and from literals.
#ifndef RELIGHT_TESTS_SERVER_MODEL_MODEL_TESTING_H_
#define RELIGHT_TESTS_SERVER_MODEL_MODEL_TESTING_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "server/config/model_config.h"
#include "server/model/graph.h"
#include "server/model/graph_factory.h"

namespace relight::model {

nlohmann::json ReadJson(const std::string& path_in_test_data);

// {"dtype": "float32", "shape": [...], "data": [...]}
HostTensor TensorFromJson(const nlohmann::json& json);
HostTensor FloatTensor(std::vector<std::int64_t> shape, const std::vector<float>& values);
template <typename T>
HostTensor TensorOf(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values);

std::vector<double> ValuesOf(const HostTensor& tensor);

// Named tensors in one piece of memory that the request keeps alive.
class Weights {
 public:
  void Add(const std::string& name, const HostTensor& tensor);
  BindRequest Request() const;
  // The memory of a weight, to be looked at or changed.
  std::byte* Data(const std::string& name);
  // Empty once nobody else holds the memory and this object is gone.
  std::weak_ptr<void> watch() const { return memory_; }

 private:
  struct Memory {
    std::vector<std::unique_ptr<std::vector<std::byte>>> blocks;
  };
  std::shared_ptr<Memory> memory_ = std::make_shared<Memory>();
  std::vector<WeightView> views_;
};

// {"fc.weight": tensor, ...}
Weights WeightsFromJson(const nlohmann::json& json);

// The process-wide backend.
GraphFactory& Backend();

// A graph on the CPU (unless the text says otherwise) from model.textproto's text.
absl::StatusOr<std::unique_ptr<Graph>> GraphFromText(const std::string& text);

// Multiplies rows of two by a matrix.
inline constexpr char kDiagonalNet[] = R"(
    input { name: "x" datatype: "FP32" shape: -1 shape: 2 }
    network { layer { name: "fc" linear { out_features: 2 bias: false } } })";

// That net with the matrix `value` * 1, bound to memory that is scribbled over and gone on return.
std::unique_ptr<BoundModel> BindDiagonal(Graph& graph, float value, int arena);

void ExpectNear(const HostTensor& actual, const HostTensor& expected, double tolerance);

template <typename T>
HostTensor TensorOf(DType dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
  const auto owner = std::make_shared<std::vector<T>>(values);
  HostTensor tensor;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data =
      std::shared_ptr<const std::byte>(owner, reinterpret_cast<const std::byte*>(owner->data()));
  tensor.size_bytes = values.size() * sizeof(T);
  return tensor;
}

}  // namespace relight::model

#endif  // RELIGHT_TESTS_SERVER_MODEL_MODEL_TESTING_H_
