// Makes the seeds of the fuzz targets out of the checkpoints under tests/data, so that nothing is
// stored twice:
//
//   fuzz_make_corpus FOLDER
//
// fills FOLDER/zip and FOLDER/safetensors with the small files of these formats, FOLDER/pickle with
// the pickles in them, and FOLDER/request with requests that send their tensors.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "inference/grpc_service.pb.h"
#include "server/rpc/typed_contents.h"
#include "storage/bytes.h"
#include "storage/checkpoint_source.h"
#include "storage/input_file.h"
#include "storage/parse_context.h"
#include "storage/pickle_machine.h"
#include "storage/tensor_stream.h"
#include "storage/zip_index.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/storage/fixtures.h"

namespace relight::fuzz {
namespace {

using storage::NodeKind;
using storage::TensorInfo;

// Larger inputs are slow to run, and what they show is tested elsewhere.
constexpr std::size_t kMaxSeedBytes = std::size_t{16} << 10;
constexpr std::uint64_t kMaxTensorBytes = 256;

class Corpus {
 public:
  explicit Corpus(const std::string& folder) : folder_(folder) {
    for (const char* target : {"zip", "pickle", "safetensors", "request"}) {
      std::filesystem::create_directories(folder_ + "/" + target);
    }
  }

  void Add(std::string_view target, std::string_view name, std::string_view bytes) const {
    if (bytes.size() > kMaxSeedBytes) return;
    const std::string path =
        absl::StrCat(folder_, "/", std::string(target), "/", std::string(name));
    std::ofstream file(path, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    Require(file.good(), path + " cannot be written");
  }

 private:
  const std::string folder_;
};

// The record data.pkl; nullopt where there is none that can be had.
std::optional<std::string> ZippedPickle(const std::string& path) {
  const auto file = storage::InputFile::Open(path, 1 << 20);
  if (!file.ok()) return std::nullopt;
  const auto index = storage::ZipIndex::Read(*file, {});
  if (!index.ok()) return std::nullopt;
  const storage::ZipEntry* entry = index->Find("data.pkl");
  if (entry == nullptr || entry->method != 0) return std::nullopt;
  const auto pickle = file->ReadText(entry->data_offset, entry->size_bytes);
  Require(pickle.ok(), pickle.status().ToString());
  return *pickle;
}

// What is behind the three small pickles that open a stream of torch before 1.6, storages included.
std::optional<std::string> StreamedPickle(const std::string& bytes) {
  constexpr int kPicklesBefore = 3;
  std::size_t at = 0;
  for (int i = 0; i < kPicklesBefore; ++i) {
    storage::Tree tree;
    const storage::ReadOptions options;
    storage::ParseContext context(tree, options, "seed", bytes.size());
    storage::DictKeys keys(context);
    const auto result =
        storage::PickleMachine(context, keys, nullptr).Run(storage::AsBytes(bytes), at);
    if (!result.ok()) return std::nullopt;
    at = result->end;
  }
  return bytes.substr(at);
}

inference::ModelInferRequest::InferInputTensor Input(std::string_view name,
                                                     const TensorInfo& tensor) {
  inference::ModelInferRequest::InferInputTensor input;
  input.set_name(std::string(name));
  input.set_datatype(std::string(ProtocolName(tensor.dtype)));
  for (const std::int64_t size : tensor.shape) input.add_shape(size);
  return input;
}

// The tensors of a checkpoint as the inputs of two requests: raw and typed.
void AddRequests(const Corpus& corpus, const std::string& name, const std::string& path) {
  const auto checkpoint = storage::Checkpoint::Open(path);
  if (!checkpoint.ok()) return;
  const storage::Tree& tree = checkpoint->tree();
  inference::ModelInferRequest raw;
  inference::ModelInferRequest typed;
  raw.set_model_name(name);
  typed.set_model_name(name);
  typed.set_model_version("100");
  for (storage::NodeId node = 0; node < tree.size(); ++node) {
    if (!tree.Is(node, NodeKind::kTensor) || raw.inputs_size() == 4) continue;
    std::string values;
    const absl::Status read = storage::StreamDense(
        tree.tensor(node), storage::CheckpointSource(*checkpoint),
        [&values](absl::Span<const std::byte> bytes) {
          values += storage::AsText(bytes);
          return values.size() <= kMaxTensorBytes ? absl::OkStatus()
                                                  : absl::ResourceExhaustedError("too large");
        });
    if (!read.ok()) continue;
    auto input = Input(absl::StrCat("input", node), tree.tensor(node));
    *raw.add_inputs() = input;
    raw.add_raw_input_contents(values);
    if (!rpc::ContentKindOf(tree.tensor(node).dtype)) continue;
    input.mutable_contents()->ParseFromString(rpc::PackContents(
        tree.tensor(node).dtype, reinterpret_cast<const std::byte*>(values.data()), values.size()));
    *typed.add_inputs() = std::move(input);
  }
  corpus.Add("request", name + ".raw", raw.SerializeAsString());
  corpus.Add("request", name + ".typed", typed.SerializeAsString());
}

// What no checkpoint gives: parameters of every kind, requested outputs, and odd encodings.
void AddOddRequests(const Corpus& corpus) {
  inference::ModelInferRequest request;
  request.set_model_name("simplenet");
  request.set_id("42");
  auto& parameters = *request.mutable_parameters();
  parameters["sequence_id"].set_int64_param(0);
  parameters["priority"].set_uint64_param(1);
  parameters["timeout"].set_int64_param(1000);
  parameters["binary_data_output"].set_bool_param(true);
  parameters["triton_enable_empty_final_response"].set_bool_param(true);
  parameters["ratio"].set_double_param(0.5);
  parameters["note"].set_string_param("text");
  auto& output = *request.add_outputs();
  output.set_name("output");
  (*output.mutable_parameters())["classification"].set_int64_param(3);
  corpus.Add("request", "parameters", request.SerializeAsString());

  auto& input = *request.add_inputs();
  input.set_name("input");
  input.set_datatype("BYTES");
  input.add_shape(2);
  input.mutable_contents()->add_bytes_contents("one");
  input.mutable_contents()->add_bytes_contents("");
  (*input.mutable_parameters())["shared_memory_region"].set_string_param("region");
  corpus.Add("request", "bytes", request.SerializeAsString());

  // inputs { shape: 1 (not packed)  shape: [2, 3]  contents { int64_contents: 7 (not packed) } }
  corpus.Add("request", "unpacked",
             std::string_view("\x2A\x0A\x18\x01\x1A\x02\x02\x03\x2A\x02\x18\x07", 12));
  // A field that nobody knows, of each wire type.
  corpus.Add("request", "unknown",
             std::string_view("\x78\x01\x79"
                              "12345678"
                              "\x7A\x01x\x7D"
                              "1234",
                              19));
}

int Make(const std::string& folder) {
  const Corpus corpus(folder);
  AddOddRequests(corpus);
  for (const char* part : {"good", "hostile", "torchscript"}) {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(storage::DataPath(part))) {
      if (!entry.is_regular_file()) continue;
      const std::string path = entry.path();
      std::string name = std::filesystem::relative(path, RELIGHT_TEST_DATA);
      std::replace(name.begin(), name.end(), '/', '_');
      const std::string bytes = storage::ReadWholeFile(path);
      std::optional<std::string> pickle;
      if (bytes.starts_with("PK")) {
        corpus.Add("zip", name, bytes);
        pickle = ZippedPickle(path);
      } else if (bytes.starts_with("\x80")) {
        pickle = StreamedPickle(bytes);
      }
      if (pickle) corpus.Add("pickle", name, *pickle);
      if (name.ends_with(".safetensors")) corpus.Add("safetensors", name, bytes);
      if (std::string_view(part) == "good") AddRequests(corpus, name, path);
    }
  }
  return 0;
}

}  // namespace
}  // namespace relight::fuzz

int main(int argc, char** argv) {
  relight::fuzz::Require(argc == 2, "one folder is to be named");
  return relight::fuzz::Make(argv[1]);
}
