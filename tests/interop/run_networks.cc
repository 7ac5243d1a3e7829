// Runs described networks as the server would, for tests that compare them with PyTorch.
//
//   run_networks FOLDER
//
// Each subfolder is a case: model.textproto, weights.pt (left out where the network has no
// parameters), inputs.json ([{"datatype": "FP32", "shape": [2, 3]}, ...]) and the inputs' bytes,
// row-major and little-endian, in input_0.bin, input_1.bin, ... Where the config leaves the device
// open, it is the CPU. Leaves beside them outputs.json (with names, too), output_0.bin, ... and
// parameters.json ({"fc.weight": [5, 10], ...}: what the graph knows), or error.txt. Without
// inputs.json there is nothing to be computed: parameters.json is all. Cases that have their result
// already are passed over, so that a run can go on after the case that a crash has ended it in.
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "server/config/acceptance.h"
#include "server/config/model_config.h"
#include "server/model/torch_backend.h"
#include "storage/checkpoint.h"
#include "storage/weights.h"

namespace relight::model {
namespace {

using std::filesystem::path;

absl::StatusOr<std::string> ReadFile(const path& file) {
  std::ifstream stream(file, std::ios::binary);
  if (!stream) return absl::NotFoundError(absl::StrCat("cannot read ", file.string()));
  return std::string(std::istreambuf_iterator<char>(stream), {});
}

absl::Status WriteFile(const path& file, const char* data, std::size_t size) {
  std::ofstream stream(file, std::ios::binary);
  stream.write(data, static_cast<std::streamsize>(size));
  stream.close();
  if (!stream) return absl::InternalError(absl::StrCat("cannot write ", file.string()));
  return absl::OkStatus();
}

absl::Status WriteFile(const path& file, const std::string& text) {
  return WriteFile(file, text.data(), text.size());
}

absl::StatusOr<std::vector<HostTensor>> ReadInputs(const path& folder) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string text, ReadFile(folder / "inputs.json"));
  std::vector<HostTensor> inputs;
  for (const nlohmann::json& described : nlohmann::json::parse(text)) {
    const path file = folder / absl::StrCat("input_", inputs.size(), ".bin");
    RELIGHT_ASSIGN_OR_RETURN(std::string bytes, ReadFile(file));
    const auto owner = std::make_shared<const std::string>(std::move(bytes));
    HostTensor& input = inputs.emplace_back();
    input.dtype = DTypeFromProtocolName(described.at("datatype").get<std::string>()).value();
    input.shape = described.at("shape").get<std::vector<std::int64_t>>();
    input.data = {owner, reinterpret_cast<const std::byte*>(owner->data())};
    input.size_bytes = owner->size();
  }
  return inputs;
}

// The steps of server/config/acceptance.h.
absl::StatusOr<BindRequest> LoadWeights(const path& file, const config::ModelConfig& config,
                                        const Graph& graph, GraphFactory& backend) {
  const std::vector<ParameterSpec>& parameters = graph.parameters();
  RELIGHT_ASSIGN_OR_RETURN(
      const storage::Checkpoint checkpoint,
      storage::Checkpoint::Open(file.string(), config::ReadOptionsOf(config.checkpoints)));
  RELIGHT_ASSIGN_OR_RETURN(const storage::StateDict state_dict,
                           config::FindWeights(checkpoint, config.checkpoints, parameters));
  RELIGHT_ASSIGN_OR_RETURN(const storage::WeightPlan plan,
                           config::PlanFor(checkpoint, state_dict, parameters));
  RELIGHT_ASSIGN_OR_RETURN(const std::shared_ptr<std::byte> block,
                           backend.AllocateHost(graph.device(), plan.total_bytes));
  RELIGHT_ASSIGN_OR_RETURN(
      const storage::ExaminedWeights examined,
      storage::LoadWeights(checkpoint, plan, absl::MakeSpan(block.get(), plan.total_bytes)));
  RELIGHT_RETURN_IF_ERROR(config::CheckValues(config, parameters, plan, examined.non_finite));
  BindRequest request;
  request.keep_alive = block;
  for (const storage::WeightTensor& tensor : plan.tensors) {
    request.weights.push_back(
        {tensor.key, tensor.dtype, tensor.shape, tensor.stride, block.get() + tensor.offset_bytes});
  }
  return request;
}

absl::Status WriteOutputs(const path& folder, const std::vector<TensorSpec>& specs,
                          const std::vector<HostTensor>& outputs) {
  nlohmann::json described = nlohmann::json::array();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const HostTensor& output = outputs[i];
    described.push_back({{"name", specs[i].name},
                         {"datatype", std::string(ProtocolName(output.dtype))},
                         {"shape", output.shape}});
    RELIGHT_RETURN_IF_ERROR(WriteFile(folder / absl::StrCat("output_", i, ".bin"),
                                      reinterpret_cast<const char*>(output.data.get()),
                                      output.size_bytes));
  }
  return WriteFile(folder / "outputs.json", described.dump());
}

absl::Status WriteParameters(const path& folder, const std::vector<ParameterSpec>& parameters) {
  nlohmann::ordered_json described = nlohmann::ordered_json::object();
  for (const ParameterSpec& parameter : parameters) described[parameter.name] = parameter.shape;
  return WriteFile(folder / "parameters.json", described.dump());
}

absl::Status RunCase(const path& folder, GraphFactory& backend) {
  RELIGHT_ASSIGN_OR_RETURN(config::ModelConfig config, config::LoadModelConfig(folder.string()));
  if (config.device.kind == config::DeviceChoice::Kind::kAuto) {
    config.device.kind = config::DeviceChoice::Kind::kCpu;
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<Graph> graph, backend.Create(config));
  RELIGHT_RETURN_IF_ERROR(WriteParameters(folder, graph->parameters()));
  if (!std::filesystem::exists(folder / "inputs.json")) return absl::OkStatus();
  BindRequest request;
  const path weights = folder / "weights.pt";
  if (std::filesystem::exists(weights) || !graph->parameters().empty()) {
    RELIGHT_ASSIGN_OR_RETURN(request, LoadWeights(weights, config, *graph, backend));
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<BoundModel> model,
                           graph->Bind(std::move(request)));
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<HostTensor> inputs, ReadInputs(folder));
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<HostTensor> outputs, model->WarmUp(inputs));
  return WriteOutputs(folder, graph->outputs(), outputs);
}

absl::Status Run(const path& folder) {
  std::vector<path> cases;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_directory()) cases.push_back(entry.path());
  }
  std::sort(cases.begin(), cases.end());
  const std::unique_ptr<GraphFactory> backend = MakeTorchBackend({.intra_op_threads = 1});
  for (const path& one : cases) {
    if (exists(one / "outputs.json") || exists(one / "error.txt")) continue;
    const absl::Status status = RunCase(one, *backend);
    if (!status.ok()) RELIGHT_RETURN_IF_ERROR(WriteFile(one / "error.txt", status.ToString()));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace relight::model

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: run_networks FOLDER\n";
    return 2;
  }
  const absl::Status status = relight::model::Run(argv[1]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
