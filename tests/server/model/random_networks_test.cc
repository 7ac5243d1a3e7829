// Networks of layers drawn at random: wherever the inference of rows lets requests share a batch,
// each must be answered as if it were alone.
//
// The nets are the same in every run; `--gtest_shuffle --gtest_random_seed=N` draws others.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/layer_text.h"
#include "server/model/torch_backend.h"
#include "server/network/layer_rules.h"
#include "storage/strided.h"
#include "tests/server/model/model_testing.h"

namespace relight::model {
namespace {

using network::Rows;
using network::Sizes;
using network::Value;

constexpr std::size_t kMostLayers = 8;
constexpr int kMostKinds = 24;
constexpr int kTriesOfAKind = 16;
constexpr int kShapesOfANet = 6;

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  std::int64_t Between(std::int64_t least, std::int64_t most) {
    const auto count = static_cast<std::uint64_t>(most - least + 1);
    return least + static_cast<std::int64_t>(engine_() % count);
  }
  bool OneIn(std::int64_t n) { return Between(1, n) == 1; }
  std::size_t Index(std::size_t size) {
    return static_cast<std::size_t>(Between(0, static_cast<std::int64_t>(size) - 1));
  }
  template <typename T>
  T Pick(std::initializer_list<T> of) {
    return of.begin()[Index(of.size())];
  }
  // As every argument called `dim` takes it: from the end, too.
  std::int64_t Dim(std::size_t rank) {
    const auto count = static_cast<std::int64_t>(std::max<std::size_t>(rank, 1));
    return Between(-count, count - 1);
  }

 private:
  std::mt19937_64 engine_;
};

// What flows in a drawn net. `exact`: small whole numbers, which are the same whatever order they
// were summed in, so that comparing them is safe.
struct Node {
  std::string name;
  Value value;
  bool exact = true;
  std::optional<std::size_t> layer = std::nullopt;
};

struct DrawnLayer {
  std::string name;
  network::LayerKind kind;
  std::vector<std::size_t> inputs;  // Nodes.
};

struct DrawnNet {
  std::string text;  // Of model.textproto.
  std::vector<TensorSpec> inputs;
};

Sizes RandomSizes(Random& random, std::size_t count, std::initializer_list<std::int64_t> of) {
  Sizes sizes;
  for (std::size_t i = 0; i < count; ++i) sizes.push_back(random.Pick(of));
  return sizes;
}

Sizes SomeDims(Random& random, std::size_t rank) {
  Sizes dims;
  const std::int64_t count = random.Between(0, 2);
  for (std::int64_t i = 0; i < count; ++i) dims.push_back(random.Dim(rank));
  return dims;
}

Sizes Order(Random& random, std::size_t rank) {
  Sizes dims(rank);
  for (std::size_t i = 0; i < rank; ++i) dims[i] = static_cast<std::int64_t>(i);
  for (std::size_t i = rank; i > 1; --i) std::swap(dims[i - 1], dims[random.Index(i)]);
  return dims;
}

Sizes LastOf(const Sizes& shape) { return {shape.empty() ? 1 : shape.back()}; }

std::optional<double> ValueOrInput(Random& random) {
  return random.OneIn(3) ? std::optional<double>(static_cast<double>(random.Between(-1, 2)))
                         : std::nullopt;
}

// Of those that RandomKind knows by number.
constexpr std::int64_t kLastKind = 54;

// A layer of the kind `which`, that may or may not fit an input of `shape`.
network::LayerKind RandomKind(std::int64_t which, Random& random, const Sizes& shape) {
  const std::size_t rank = shape.size();
  const auto dim = [&] { return random.Dim(rank); };
  const auto small = [&] { return random.Between(1, 3); };
  const auto image_dims = [&] { return static_cast<int>(random.Between(1, 2)); };
  switch (which) {
    case 0:
      return network::Linear{.out_features = small()};
    case 1:
      return network::Activation{
          random.Pick({network::ActivationOp::kRelu, network::ActivationOp::kAbs,
                       network::ActivationOp::kTanh})};
    case 2:
      return network::Softmax{.dim = dim()};
    case 3:
      return network::Cumsum{.dim = dim()};
    case 4:
      return network::Reduce{.op = random.Pick({network::ReduceOp::kMean, network::ReduceOp::kSum,
                                                network::ReduceOp::kAmax}),
                             .dim = SomeDims(random, rank),
                             .keepdim = random.OneIn(2)};
    case 5:
      return network::ArgReduce{.dim = dim(), .keepdim = random.OneIn(2)};
    case 6:
    case 7:
      return network::Elementwise{
          .op = random.Pick({network::ElementwiseOp::kAdd, network::ElementwiseOp::kMul,
                             network::ElementwiseOp::kSub, network::ElementwiseOp::kMaximum}),
          .value = ValueOrInput(random)};
    case 8:
      return network::Compare{.op = random.Pick({network::CompareOp::kEq, network::CompareOp::kLe}),
                              .value = ValueOrInput(random)};
    case 9:
      return network::Where{};
    case 10:
      return network::MaskedFill{};
    case 11:
    case 12:
      return network::Matmul{};
    case 13:
    case 14:
      return network::Concat{.dim = dim()};
    case 15:
      return network::Stack{.dim = random.Dim(rank + 1)};
    case 16:
      return network::ScaledDotProductAttention{.is_causal = random.OneIn(3)};
    case 17:
      return network::Flatten{.start_dim = dim(), .end_dim = dim()};
    case 18:
      return network::Unflatten{.dim = dim(),
                                .sizes = RandomSizes(random, random.Index(2) + 1, {-1, 1, 2, 3})};
    case 19:
    case 20:
      return network::Reshape{
          RandomSizes(random, random.Index(rank + 1) + 1, {-1, 0, 0, 0, 1, 2, 3, 6})};
    case 21:
      return network::Permute{Order(random, rank)};
    case 22:
      return network::Transpose{.dim0 = dim(), .dim1 = dim()};
    case 23:
      return network::Squeeze{dim()};
    case 24:
    case 25:
      return network::Unsqueeze{random.Dim(rank + 1)};
    case 26:
      return network::Select{.dim = dim(), .index = random.Between(-2, 1)};
    case 27:
      return network::Slice{.dim = dim(),
                            .start = random.Between(-2, 1),
                            .end = random.OneIn(2) ? std::optional<std::int64_t>(2) : std::nullopt,
                            .step = random.Between(1, 2)};
    case 28:
      return network::Split{.split_size = RandomSizes(random, random.Index(2) + 1, {1, 2}),
                            .dim = dim()};
    case 29:
      return network::Chunk{.chunks = small(), .dim = dim()};
    case 30:
    case 31:
    case 32:
      return network::ExpandAs{random.OneIn(2) ? Sizes{} : Sizes{dim()}};
    case 33:
      return network::Arange{dim()};
    case 34:
      return network::Parameter{RandomSizes(random, random.Index(4), {1, 1, 2, 3})};
    case 35:
      return network::LayerNorm{.normalized_shape = LastOf(shape)};
    case 36:
      return network::BatchNorm{.spatial_dims = image_dims()};
    case 37:
      return network::Conv{.spatial_dims = image_dims(),
                           .transposed = random.OneIn(3),
                           .out_channels = small(),
                           .kernel_size = {random.Between(1, 2)},
                           .padding = {random.Between(0, 1)}};
    case 38:
      return network::Recurrent{
          .op = random.Pick({network::RecurrentOp::kLstm, network::RecurrentOp::kGru}),
          .hidden_size = small(),
          .batch_first = random.OneIn(2)};
    case 39:
      return network::MultiheadAttention{.num_heads = 1,
                                         .add_bias_kv = random.OneIn(3),
                                         .add_zero_attn = random.OneIn(3),
                                         .batch_first = random.OneIn(2),
                                         .is_causal = random.OneIn(3),
                                         .need_weights = random.OneIn(2)};
    case 40:
      return network::Pad{.padding = RandomSizes(random, 2 * (random.Index(rank + 1) + 1), {0, 1})};
    case 41:
      return network::AdaptivePool{
          .spatial_dims = image_dims(), .max = random.OneIn(2), .output_size = {small()}};
    case 42:
      return network::Embedding{.num_embeddings = 8, .embedding_dim = small()};
    case 43:
      return network::Cast{random.Pick({DType::kInt64, DType::kFloat32, DType::kBool})};
    case 44:
      return network::Glu{dim()};
    case 45:
      return network::Normalize{.dim = dim()};
    case 46:
      return network::ChannelShuffle{random.Between(1, 2)};
    case 47:
      return network::PixelShuffle{.inverse = random.OneIn(2), .factor = random.Between(1, 2)};
    case 48:
      return network::MaxPool{.spatial_dims = image_dims(), .kernel_size = {random.Between(1, 2)}};
    case 49:
      return network::AvgPool{.spatial_dims = image_dims(), .kernel_size = {random.Between(1, 2)}};
    case 50:
      return network::Upsample{.scale_factor = {2}};
    case 51:
      return network::LocalResponseNorm{.size = random.Between(1, 2)};
    case 52:
      return network::InstanceNorm{.spatial_dims = image_dims()};
    case 53:
      return network::GroupNorm{.num_groups = random.Between(1, 2)};
    default:
      return network::Bilinear{.out_features = small()};
  }
}

template <typename... Kinds>
bool IsOneOf(const network::LayerKind& kind) {
  return (std::holds_alternative<Kinds>(kind) || ...);
}

// Whether the numbers stay small and whole.
bool StaysExact(const network::LayerKind& kind) {
  if (const auto* activation = std::get_if<network::Activation>(&kind)) {
    return activation->op != network::ActivationOp::kTanh;
  }
  if (const auto* reduce = std::get_if<network::Reduce>(&kind)) {
    return reduce->op != network::ReduceOp::kMean;
  }
  if (const auto* elementwise = std::get_if<network::Elementwise>(&kind)) {
    return elementwise->op != network::ElementwiseOp::kMul;
  }
  if (IsOneOf<network::Parameter, network::Embedding>(kind)) return true;
  return !network::HasParameters(kind) &&
         !IsOneOf<network::Softmax, network::Matmul, network::ScaledDotProductAttention,
                  network::Glu, network::Normalize, network::AvgPool, network::AdaptivePool,
                  network::LocalResponseNorm, network::InstanceNorm>(kind);
}

// Whether a small difference of an input may make a large one.
bool Jumps(const network::LayerKind& kind) {
  return IsOneOf<network::Compare, network::ArgReduce, network::Cast, network::Embedding,
                 network::LayerNorm, network::InstanceNorm, network::GroupNorm, network::Normalize>(
      kind);
}

class Drawing {
 public:
  explicit Drawing(Random& random) : random_(random) {
    const std::int64_t inputs = random_.Between(1, 3);
    for (std::int64_t i = 0; i < inputs; ++i) AddInput(absl::StrCat("x", i));
    for (int i = 0; i < kMostKinds && layers_.size() < kMostLayers; ++i) TryLayer();
  }

  // Nothing where no value has its rows first.
  std::optional<DrawnNet> Net() const {
    for (std::size_t i = nodes_.size(); i-- > 0 && nodes_[i].layer;) {
      const Value& value = nodes_[i].value;
      if (!value.rows.along(0) || value.shape[0] >= 0) continue;
      return NetWith(i);
    }
    return std::nullopt;
  }

 private:
  void AddInput(std::string name) {
    Node& node = nodes_.emplace_back();
    node.name = std::move(name);
    node.value.dtype = random_.OneIn(5) ? DType::kInt64 : DType::kFloat32;
    node.value.shape = RandomSizes(random_, random_.Index(4), {-1, 1, 2, 3});
    node.value.shape.insert(node.value.shape.begin(), -1);
    node.value.rows = Rows::Along(0);
  }

  std::size_t AnyNode() {
    // Rather a new one.
    const std::size_t count = nodes_.size();
    return random_.OneIn(2) ? count - 1 - random_.Index(std::min<std::size_t>(count, 3))
                            : random_.Index(count);
  }

  // Kinds that seldom fit are not to be rare.
  void TryLayer() {
    const std::int64_t kind = random_.Between(0, kLastKind);
    for (int i = 0; i < kTriesOfAKind; ++i) {
      if (AddLayer(kind)) return;
    }
  }

  bool AddLayer(std::int64_t which) {
    std::vector<std::size_t> inputs = {AnyNode()};
    network::LayerKind kind = RandomKind(which, random_, nodes_[inputs[0]].value.shape);
    const network::TakenInputs taken = network::InputsOf(kind);
    if (taken.names.empty()) inputs.clear();
    while (inputs.size() < taken.least) inputs.push_back(AnyNode());
    const std::size_t most = taken.any_number ? 3 : taken.names.size();
    while (inputs.size() < most && random_.OneIn(2)) inputs.push_back(AnyNode());

    network::Messages errors;
    network::CompleteArguments(kind, errors);
    if (!errors.empty()) return false;
    std::vector<Value> values;
    std::vector<std::size_t> slots;
    bool exact = true;
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      const Node& node = nodes_[inputs[i]];
      values.push_back(node.value);
      slots.push_back(std::min(i, taken.names.size() - 1));
      exact = exact && node.exact;
    }
    if (!exact && Jumps(kind)) return false;
    const std::vector<Value> outputs = network::InferOutputs(kind, {values, slots}, errors);
    if (outputs.empty() || !errors.empty()) return false;
    for (const Value& output : outputs) {
      if (output.rows.state == Rows::State::kMixed) return false;
    }
    const std::string name = absl::StrCat("l", layers_.size());
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      nodes_.push_back({.name = i == 0 ? name : absl::StrCat(name, ":", i),
                        .value = outputs[i],
                        .exact = exact && StaysExact(kind),
                        .layer = layers_.size()});
    }
    layers_.push_back({name, std::move(kind), std::move(inputs)});
    return true;
  }

  void Reach(std::size_t node, std::set<std::size_t>& layers, std::set<std::size_t>& inputs) const {
    if (!nodes_[node].layer) {
      inputs.insert(node);
      return;
    }
    if (!layers.insert(*nodes_[node].layer).second) return;
    for (const std::size_t input : layers_[*nodes_[node].layer].inputs) {
      Reach(input, layers, inputs);
    }
  }

  DrawnNet NetWith(std::size_t output) const {
    std::set<std::size_t> layers;
    std::set<std::size_t> inputs;
    Reach(output, layers, inputs);
    DrawnNet net;
    for (const std::size_t input : inputs) {
      const Node& node = nodes_[input];
      TensorSpec& spec = net.inputs.emplace_back();
      spec.name = node.name;
      spec.dtype = node.value.dtype;
      spec.shape = node.value.shape;
      absl::StrAppend(&net.text, "input { name: \"", node.name, "\" datatype: \"",
                      std::string(ProtocolName(spec.dtype)), "\" shape: [",
                      absl::StrJoin(spec.shape, ", "), "] }\n");
    }
    absl::StrAppend(&net.text, "output { name: \"", nodes_[output].name, "\" datatype: \"",
                    std::string(ProtocolName(nodes_[output].value.dtype)), "\" }\nnetwork {\n");
    for (const std::size_t layer : layers) {
      absl::StrAppend(&net.text, "  layer { name: \"", layers_[layer].name, "\"");
      for (const std::size_t input : layers_[layer].inputs) {
        absl::StrAppend(&net.text, " input: \"", nodes_[input].name, "\"");
      }
      absl::StrAppend(&net.text, " ", config::LayerKindText(layers_[layer].kind), " }\n");
    }
    absl::StrAppend(&net.text, "}\n");
    return net;
  }

  Random& random_;
  std::vector<Node> nodes_;
  std::vector<DrawnLayer> layers_;
};

// Small whole numbers from `least` on; for integers such that they may be indices.
HostTensor RandomTensor(Random& random, DType dtype, const Sizes& shape, std::int64_t least = -3) {
  const std::size_t count = storage::CountElements(shape);
  if (dtype == DType::kInt64) {
    std::vector<std::int64_t> values(count);
    for (std::int64_t& value : values) value = random.Between(0, 3);
    return TensorOf(dtype, shape, values);
  }
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.Between(least, 3));
  return FloatTensor(shape, values);
}

using Inputs = std::vector<HostTensor>;

// The rows of several requests, one after another.
Inputs Together(absl::Span<const Inputs> requests) {
  Inputs all;
  for (std::size_t i = 0; i < requests[0].size(); ++i) {
    HostTensor& tensor = all.emplace_back();
    const auto bytes = std::make_shared<std::vector<std::byte>>();
    tensor.dtype = requests[0][i].dtype;
    tensor.shape = requests[0][i].shape;
    tensor.shape[0] = 0;
    for (const Inputs& request : requests) {
      tensor.shape[0] += request[i].shape[0];
      const std::byte* const data = request[i].data.get();
      bytes->insert(bytes->end(), data, data + request[i].size_bytes);
    }
    tensor.data = {bytes, bytes->data()};
    tensor.size_bytes = bytes->size();
  }
  return all;
}

// Answers of other requests differ by whole numbers, mostly; a card computes in TF32, which has 11
// bits, in an order that depends on the batch.
bool Same(double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return a == b || std::abs(a - b) <= 1e-2 * std::max({1.0, std::abs(a), std::abs(b)});
}

// Empty where every request alone has the answer that it has among the others. `compared`: whether
// there was something to compare.
std::string WhatDiffers(const BoundModel& model, absl::Span<const Inputs> requests,
                        bool& compared) {
  const auto batch = model.Forward(Together(requests));
  // What cannot be computed together is computed again, each alone.
  compared = batch.ok();
  if (!compared) return "";
  const Sizes& together = batch->at(0).shape;
  const std::vector<double> values = ValuesOf(batch->at(0));
  // Of no elements some of LibTorch's functions make an error, others an empty tensor.
  if (values.empty()) return "";
  std::size_t at = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const auto alone = model.Forward(requests[i]);
    if (!alone.ok()) return absl::StrCat("alone ", i, ": ", alone.status().ToString());
    Sizes wanted = together;
    wanted[0] = requests[i][0].shape[0];
    const Sizes& shape = alone->at(0).shape;
    if (shape != wanted) {
      return absl::StrCat("request ", i, " is answered in [", absl::StrJoin(shape, ", "),
                          "], the batch in [", absl::StrJoin(together, ", "), "]");
    }
    const std::vector<double> own = ValuesOf(alone->at(0));
    for (std::size_t k = 0; k < own.size(); ++k, ++at) {
      if (at >= values.size()) return "the batch's answer is too short";
      if (Same(own[k], values[at])) continue;
      return absl::StrCat("request ", i, ", element ", k, ": alone ", own[k], ", among others ",
                          values[at]);
    }
  }
  return at == values.size() ? "" : "the batch's answer is too long";
}

// Two requests or three, with the same sizes but for their numbers of rows.
std::vector<Inputs> DrawRequests(Random& random, const std::vector<TensorSpec>& inputs) {
  const std::int64_t free_size = random.Between(1, 3);
  std::vector<Sizes> shapes;
  for (const TensorSpec& input : inputs) {
    Sizes& shape = shapes.emplace_back(input.shape);
    for (std::int64_t& size : shape) {
      if (size < 0) size = random.OneIn(4) ? random.Between(1, 3) : free_size;
    }
  }
  std::vector<Inputs> requests(random.Index(2) + 2);
  for (Inputs& request : requests) {
    const std::int64_t rows = random.Between(1, 3);
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      shapes[i][0] = rows;
      request.push_back(RandomTensor(random, inputs[i].dtype, shapes[i]));
    }
  }
  return requests;
}

struct Place {
  const char* device;
  int nets;
};

class RandomNetworksTest : public testing::TestWithParam<Place> {};

TEST_P(RandomNetworksTest, AnswerEachRequestOfABatchAsIfItWereAlone) {
  const Place& place = GetParam();
  if (place.device != std::string("cpu") && DescribeBackend().cuda_devices == 0) {
    ASSERT_EQ(std::getenv("RELIGHT_NEEDS_CARD"), nullptr) << "there is no CUDA device";
    GTEST_SKIP() << "there is no CUDA device";
  }
  const auto seed = static_cast<std::uint64_t>(testing::UnitTest::GetInstance()->random_seed());
  int compared_nets = 0;
  for (int n = 0; n < place.nets; ++n) {
    Random random(seed * 1'000'003 + static_cast<std::uint64_t>(n));
    const std::optional<DrawnNet> net = Drawing(random).Net();
    if (!net) continue;
    SCOPED_TRACE(absl::StrCat("net ", n, ":\n", net->text));
    const auto graph = GraphFromText(absl::StrCat(
        "device: \"", place.device, "\"\nbatching { max_batch_size: 16 }\n", net->text));
    ASSERT_TRUE(graph.ok()) << graph.status();
    Weights weights;
    for (const ParameterSpec& parameter : (*graph)->parameters()) {
      weights.Add(parameter.name, RandomTensor(random, parameter.dtype, parameter.shape,
                                               parameter.name.ends_with("running_var") ? 0 : -3));
    }
    const auto bound = (*graph)->Bind(weights.Request());
    ASSERT_TRUE(bound.ok()) << bound.status();
    bool any = false;
    for (int i = 0; i < kShapesOfANet; ++i) {
      const std::vector<Inputs> requests = DrawRequests(random, net->inputs);
      // With sizes that do not fit there is nothing to warm up.
      if (i == 0) (void)(*bound)->WarmUp(requests[0]);
      bool compared = false;
      ASSERT_EQ(WhatDiffers(**bound, requests, compared), "");
      any = any || compared;
    }
    compared_nets += any ? 1 : 0;
  }
  // Else it is not the nets that it was written for.
  EXPECT_GT(compared_nets, place.nets / 2);
}

INSTANTIATE_TEST_SUITE_P(Devices, RandomNetworksTest,
                         testing::Values(Place{"cpu", 2000}, Place{"cuda:0", 500}),
                         [](const auto& device) { return device.index == 0 ? "Cpu" : "Card"; });

}  // namespace
}  // namespace relight::model
