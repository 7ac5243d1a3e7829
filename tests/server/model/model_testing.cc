#include "tests/server/model/model_testing.h"

#include <cmath>
#include <cstring>
#include <fstream>

#include "gtest/gtest.h"
#include "server/model/torch_backend.h"
#include "tests/paths.h"

namespace relight::model {
namespace {

template <typename T>
std::vector<double> ValuesAs(const HostTensor& tensor) {
  std::vector<T> values(tensor.size_bytes / sizeof(T));
  std::memcpy(values.data(), tensor.data.get(), tensor.size_bytes);
  return std::vector<double>(values.begin(), values.end());
}

}  // namespace

nlohmann::json ReadJson(const std::string& path_in_test_data) {
  std::ifstream file(std::string(RELIGHT_TEST_DATA) + "/" + path_in_test_data);
  return nlohmann::json::parse(file);
}

HostTensor TensorFromJson(const nlohmann::json& json) {
  const DType dtype = DTypeFromName(json.at("dtype").get<std::string>()).value();
  const auto shape = json.at("shape").get<std::vector<std::int64_t>>();
  if (dtype == DType::kInt64) {
    return TensorOf(dtype, shape, json.at("data").get<std::vector<std::int64_t>>());
  }
  EXPECT_EQ(dtype, DType::kFloat32) << "the test data has a dtype that the tests do not read";
  return TensorOf(dtype, shape, json.at("data").get<std::vector<float>>());
}

HostTensor FloatTensor(std::vector<std::int64_t> shape, const std::vector<float>& values) {
  return TensorOf(DType::kFloat32, std::move(shape), values);
}

std::vector<double> ValuesOf(const HostTensor& tensor) {
  switch (tensor.dtype) {
    case DType::kFloat32:
      return ValuesAs<float>(tensor);
    case DType::kFloat64:
      return ValuesAs<double>(tensor);
    case DType::kInt64:
      return ValuesAs<std::int64_t>(tensor);
    case DType::kUInt64:
      return ValuesAs<std::uint64_t>(tensor);
    case DType::kUInt32:
      return ValuesAs<std::uint32_t>(tensor);
    case DType::kUInt16:
      return ValuesAs<std::uint16_t>(tensor);
    case DType::kUInt8:
    case DType::kBool:
      return ValuesAs<std::uint8_t>(tensor);
    default:
      ADD_FAILURE() << "the tests do not read " << Name(tensor.dtype);
      return {};
  }
}

void Weights::Add(const std::string& name, const HostTensor& tensor) {
  auto block = std::make_unique<std::vector<std::byte>>(tensor.data.get(),
                                                        tensor.data.get() + tensor.size_bytes);
  WeightView view;
  view.name = name;
  view.dtype = tensor.dtype;
  view.shape = tensor.shape;
  view.stride.assign(tensor.shape.size(), 1);
  for (std::size_t i = view.stride.size(); i-- > 1;) {
    view.stride[i - 1] = view.stride[i] * view.shape[i];
  }
  view.data = block->data();
  memory_->blocks.push_back(std::move(block));
  views_.push_back(std::move(view));
}

BindRequest Weights::Request() const {
  BindRequest request;
  request.weights = views_;
  request.keep_alive = memory_;
  return request;
}

std::byte* Weights::Data(const std::string& name) {
  for (std::size_t i = 0; i < views_.size(); ++i) {
    if (views_[i].name == name) return memory_->blocks[i]->data();
  }
  return nullptr;
}

Weights WeightsFromJson(const nlohmann::json& json) {
  Weights weights;
  for (const auto& [name, tensor] : json.items()) weights.Add(name, TensorFromJson(tensor));
  return weights;
}

GraphFactory& Backend() {
  static const std::unique_ptr<GraphFactory> backend = MakeTorchBackend({.intra_op_threads = 1});
  return *backend;
}

std::unique_ptr<BoundModel> BindDiagonal(Graph& graph, float value, int arena) {
  Weights weights;
  weights.Add("fc.weight", FloatTensor({2, 2}, {value, 0, 0, value}));
  BindRequest request = weights.Request();
  request.arena = arena;
  auto bound = graph.Bind(std::move(request));
  EXPECT_TRUE(bound.ok()) << bound.status();
  std::memset(weights.Data("fc.weight"), 0xFF, 16);
  return *std::move(bound);
}

absl::StatusOr<std::unique_ptr<Graph>> GraphFromText(const std::string& text) {
  auto config = config::ParseModelConfig(text, std::string(RELIGHT_TEST_DATA) + "/model");
  if (!config.ok()) return config.status();
  if (text.find("device") == std::string::npos) {
    config->device.kind = config::DeviceChoice::Kind::kCpu;
  }
  return Backend().Create(*config);
}

void ExpectNear(const HostTensor& actual, const HostTensor& expected, double tolerance) {
  ASSERT_EQ(Name(actual.dtype), Name(expected.dtype));
  ASSERT_EQ(actual.shape, expected.shape);
  ASSERT_EQ(actual.size_bytes, expected.size_bytes);
  const std::vector<double> values = ValuesOf(actual);
  const std::vector<double> wanted = ValuesOf(expected);
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], wanted[i], tolerance) << "at element " << i;
  }
}

}  // namespace relight::model
