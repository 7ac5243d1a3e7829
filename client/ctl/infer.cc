// The command infer: sends tensors to a model and prints its answer.
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/infer_input.h"
#include "client/ctl/npy.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"
#include "client/ctl/tensor_json.h"

namespace relight::ctl {
namespace {

using client::InferRequest;
using client::InferResponse;
using client::Tensor;
using Json = nlohmann::ordered_json;

constexpr absl::Duration kUsualTimeout = absl::Seconds(60);
constexpr std::size_t kShownElements = 1000;

constexpr char kDetails[] =
    R"(Sends tensors to a model and prints its answer, with the version, generation and digest of the
weights that gave it.

An input is NAME=VALUE; where the model has one input, VALUE alone will do. A VALUE is
  JSON           nested arrays, whose nesting is the shape; "NaN" and "Infinity" as strings
  @FILE.json     the same from a file; @- reads it from standard input
  @FILE.npy      an array saved by numpy.save
  @FILE          raw bytes, little-endian and row-major
Datatypes come from the model; so do shapes of raw bytes, where one dimension at most is free.

examples:
  relightctl infer simplenet '[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]'
  relightctl infer simplenet --input x=@rows.npy --version 100 --json
  relightctl infer resnet --input image=@image.bin --shape image=1,3,224,224
  relightctl infer resnet @image.npy --output logits --save logits=logits.npy
)";

absl::StatusOr<InferRequest> MakeRequest(Session& session, client::Client& client) {
  InferRequest request;
  request.model = session.positional(0);
  RELIGHT_ASSIGN_OR_RETURN(request.version, session.GetInteger("version"));
  request.id = session.arguments().Get("id").value_or("");
  request.outputs = session.arguments().All("output");
  InputOptions options{session.arguments().All("input"), session.arguments().All("shape"),
                       session.arguments().All("datatype")};
  const std::vector<std::string>& positionals = session.arguments().positionals();
  options.inputs.insert(options.inputs.end(), positionals.begin() + 1, positionals.end());
  RELIGHT_ASSIGN_OR_RETURN(
      const client::ModelMetadata metadata,
      client.ModelMetadata(request.model, request.version, session.Call(kUsualTimeout)));
  RELIGHT_ASSIGN_OR_RETURN(request.inputs, ReadInputs(options, metadata));
  return request;
}

absl::StatusOr<InferResponse> Ask(Session& session, client::Client& client) {
  RELIGHT_ASSIGN_OR_RETURN(InferRequest request, MakeRequest(session, client));
  return client.Infer(std::move(request), session.Call(kUsualTimeout));
}

Json ResponseToJson(const InferResponse& response) {
  Json outputs = Json::array();
  for (const Tensor& output : response.outputs) {
    outputs.push_back({{"name", output.name},
                       {"datatype", std::string(Name(output.datatype))},
                       {"shape", output.shape},
                       {"data", TensorToJson(output)}});
  }
  Json json = {{"model", response.model},
               {"version", response.version},
               {"generation", response.generation},
               {"weights_digest", response.weights_digest}};
  if (!response.id.empty()) json["id"] = response.id;
  json["outputs"] = std::move(outputs);
  return json;
}

void PrintResponse(const Session& session, const InferResponse& response) {
  std::string text = absl::StrCat(Paint(Printable(response.model), Color::kBold, session.color()),
                                  " version ", Printable(response.version));
  if (response.generation != 0) absl::StrAppend(&text, ", generation ", response.generation);
  if (!response.weights_digest.empty()) {
    absl::StrAppend(&text, ", digest ", Printable(response.weights_digest));
  }
  text += '\n';
  for (const Tensor& output : response.outputs) {
    absl::StrAppend(&text, Paint(Printable(output.name), Color::kBold, session.color()), "  ",
                    std::string(Name(output.datatype)), " [", absl::StrJoin(output.shape, ", "),
                    "]\n", TensorToText(output, kShownElements));
  }
  session.Print(text);
}

absl::Status Save(const Tensor& output, const std::string& path) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string bytes, FormatNpy(output));
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (!file) return absl::FailedPreconditionError(absl::StrCat(Escape(path), " cannot be written"));
  return absl::OkStatus();
}

absl::Status SaveOutputs(const Session& session, const InferResponse& response) {
  for (const std::string& word : session.arguments().All("save")) {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) {
      return UsageError(absl::StrCat("--save is \"", Escape(word), "\", not NAME=FILE.npy"));
    }
    const Tensor* const output = response.Find(word.substr(0, equals));
    if (output == nullptr) {
      return UsageError(
          absl::StrCat("--save: the answer has no output ", Escape(word.substr(0, equals))));
    }
    RELIGHT_RETURN_IF_ERROR(Save(*output, word.substr(equals + 1)));
  }
  return absl::OkStatus();
}

absl::Status Infer(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(client::Client client, session.ConnectServer());
  RELIGHT_ASSIGN_OR_RETURN(
      const InferResponse response,
      WithProgress(absl::StrCat("waiting for ", OneLine(session.positional(0))),
                   [&] { return Ask(session, client); }));
  if (session.json()) {
    session.PrintJson(ResponseToJson(response));
  } else {
    PrintResponse(session, response);
  }
  return SaveOutputs(session, response);
}

}  // namespace

Command InferCommand() {
  return {"infer",
          "MODEL [INPUT]...",
          1,
          64,
          "send tensors to a model and print its answer",
          kDetails,
          {{"input", "[NAME=]VALUE", "an input, as JSON or @FILE", true},
           {"shape", "[NAME=]SIZES", "the shape of an input, such as 1,3,224,224", true},
           {"datatype", "[NAME=]TYPE", "the datatype of an input, such as FP32", true},
           {"version", "N", "ask this version, not the newest"},
           {"output", "NAME", "answer with this output only", true},
           {"save", "NAME=FILE.npy", "write an output to a file", true},
           {"id", "TEXT", "an id that comes back with the answer"}},
          Infer};
}

}  // namespace relight::ctl
