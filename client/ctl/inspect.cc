// The command inspect: what is in a checkpoint, and whether a config would accept it.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/inspection.h"
#include "client/ctl/inspection_json.h"
#include "client/ctl/inspection_text.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"
#include "client/ctl/value_text.h"
#include "server/config/model_config.h"
#include "storage/error.h"
#include "storage/folder.h"

namespace relight::ctl {
namespace {

constexpr std::size_t kMaxPathBytes = 1024;

constexpr char kDetails[] =
    R"(Shows what is in a checkpoint, without a server: the format and which PyTorch wrote it, the weights
with their types, shapes and sizes, which of them are tied or views, NaN, the optimizer and whatever
else lies beside them, checksums and digests. Nothing in the file is ever executed.

PATH is a file of torch.save or safetensors, an index of shards (*.index.json), or a folder that holds
exactly one checkpoint, such as the checkpoint-500 of a Hugging Face trainer.

With --config it runs the checks of the server's loader and lists everything that they object to:
missing and unexpected keys, shapes, types, values that are not finite. CONFIG is a model.textproto or
the folder that holds it. (The server also runs the graph once before it serves a checkpoint.)

The digest is that of the served weights, as "relightctl status" shows it; the SHA-256 is the file's.
Lists end after a hundred rows unless --all is given; --json has everything.

exit codes:
  0  the checkpoint is whole and holds weights that can be served; with --config: it is accepted
  6  it is refused: the message begins with the server's code for the reason
  1  it could not be examined, or not to the end

examples:
  relightctl inspect checkpoint.pt
  relightctl inspect checkpoint.pt --config models/simplenet
  relightctl inspect llama/ --quick
  relightctl inspect checkpoint.pt --json | jq -r '.weights.tensors[].key'
  relightctl inspect step-7.pt --config models/net && mv step-7.pt models/net/checkpoints/
)";

bool IsMissing(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::status(path, ignored).type() == std::filesystem::file_type::not_found;
}

absl::StatusOr<std::string> Locate(const std::string& path) {
  if (IsMissing(path)) {
    return absl::NotFoundError(absl::StrCat(Escape(path, kMaxPathBytes), ": no such file"));
  }
  return storage::LocateCheckpoint(path);
}

absl::StatusOr<InspectOptions> MakeOptions(const Session& session) {
  const Arguments& arguments = session.arguments();
  InspectOptions options;
  options.state_dict_key = arguments.Get("key").value_or("");
  options.strip_prefix = arguments.Get("strip-prefix").value_or("");
  options.quick = arguments.Has("quick");
  options.config_name = arguments.Get("config").value_or("");
  if (arguments.Has("config") && (arguments.Has("key") || arguments.Has("strip-prefix"))) {
    return UsageError(
        "--config says itself where the weights are: leave out --key and "
        "--strip-prefix");
  }
  return options;
}

// To a daemon an I/O error may pass (UNAVAILABLE); here it is final.
absl::Status Final(const absl::Status& status) {
  if (!absl::IsUnavailable(status)) return status;
  return absl::FailedPreconditionError(status.message());
}

// What the tables above it say at length, in a line; and what to do.
std::string Message(const Inspection& inspection, const std::string& config_name) {
  const auto code = storage::GetErrorCode(inspection.error);
  std::string message(inspection.error.message());
  if (inspection.config.has_value() && !code.has_value()) {
    const std::string mismatch = MismatchSummary(inspection.config->mismatch);
    if (!mismatch.empty()) {
      message = absl::StrCat(Escape(config_name, kMaxPathBytes), " would not accept ",
                             Escape(inspection.path, kMaxPathBytes), ": ", mismatch);
    }
  }
  if (code == storage::ErrorCode::kNoStateDict) {
    absl::StrAppend(&message, "\n--key says where in the file the state dict is.");
  } else if (storage::MayBeTorn(inspection.error) && !inspection.checkpoint.has_value()) {
    std::error_code error;
    const std::uintmax_t size_bytes = std::filesystem::file_size(inspection.path, error);
    if (!error) {
      absl::StrAppend(&message, "\nIt has ", Grouped(size_bytes),
                      " bytes now: is it whole, or still being written or copied?");
    }
  }
  return message;
}

absl::Status ResultOf(const Inspection& inspection, absl::Status error) {
  switch (inspection.outcome) {
    case Outcome::kAcceptable:
      return absl::OkStatus();
    case Outcome::kRefused:
      return RefusalOf(std::move(error));
    default:
      return Final(error);
  }
}

Inspection InspectWithProgress(const std::string& path, InspectOptions options) {
  std::string pass;
  std::optional<ProgressBar> bar;
  options.progress = [&](const char* name, std::uint64_t done, std::uint64_t total) {
    if (pass != name) bar.emplace(pass = name);
    bar->Update(done, total);
  };
  return Inspect(path, options);
}

absl::Status RunInspect(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(InspectOptions options, MakeOptions(session));
  std::optional<config::ModelConfig> config;
  if (session.arguments().Has("config")) {
    RELIGHT_ASSIGN_OR_RETURN(config, config::LoadModelConfigAt(options.config_name));
    options.config = &*config;
  }
  const absl::StatusOr<std::string> path = Locate(session.positional(0));
  if (!path.ok() && !storage::GetErrorCode(path.status()).has_value()) return Final(path.status());
  Inspection inspection;
  if (path.ok()) {
    inspection = InspectWithProgress(*path, options);
  } else {
    inspection.path = session.positional(0);
    inspection.outcome = Outcome::kRefused;
    inspection.error = path.status();
  }
  if (session.json()) {
    session.PrintJson(ToJson(inspection, options.config_name));
    return ResultOf(inspection, inspection.error);
  }
  if (inspection.checkpoint.has_value()) {
    session.Print(InspectionText(inspection, {.color = session.color(),
                                              .width = TerminalWidth(),
                                              .all = session.arguments().Has("all"),
                                              .config_name = options.config_name}));
  }
  if (inspection.error.ok()) return absl::OkStatus();
  return ResultOf(inspection,
                  absl::Status(inspection.error.code(), Message(inspection, options.config_name)));
}

}  // namespace

Command InspectCommand() {
  return {"inspect",
          "PATH",
          1,
          1,
          "show what is in a checkpoint, and whether a config accepts it",
          kDetails,
          {{"config", "CONFIG", "check it against this model.textproto, or this model's folder"},
           {"quick", "", "do not read the tensors: no digests, checksums or values"},
           {"all", "", "show every row of every list, and the tensors beside the weights"},
           {"key", "KEYS", "where the state dict is, as keys joined by /"},
           {"strip-prefix", "TEXT", "a prefix to strip from every key"}},
          RunInspect};
}

}  // namespace relight::ctl
