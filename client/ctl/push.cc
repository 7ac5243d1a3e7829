// The command push: brings a checkpoint to a server that does not share a disk with this machine.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/ctl/admin_json.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"

namespace relight::ctl {
namespace {

using client::PushOptions;
using client::PushResult;
using client::VersionState;

constexpr char kDetails[] =
    R"(Puts a checkpoint into a model's watched folder on the server, under its own name or that of --as,
and waits until it serves. The file appears there once it is whole, its SHA-256 was compared and the
loader's checks have passed (names, shapes, types, finite values, checksums); a push that is refused
or breaks leaves nothing behind. An existing file is refused unless --overwrite is given; what that
replaces is gone, also where the graph itself then refuses the new weights.

The exit code is 0 where the checkpoint is in the folder, also if it does not serve because another
version is pinned or newer, or the model is unloaded: the first line says so. It is 1 where the
model cannot serve it.

examples:
  relightctl push simplenet step-200.pt
  relightctl push simplenet runs/7/last.pt --as step-200.pt --overwrite
  relightctl push simplenet step-200.pt --json | jq .serves
)";

std::string Describe(const std::string& model, const PushResult& result) {
  std::string text =
      absl::StrCat(Printable(result.file), " is in the watched folder of ", Printable(model),
                   result.serves ? " and serves" : " and does not serve");
  if (!result.reason.empty()) absl::StrAppend(&text, ": ", Printable(result.reason));
  absl::StrAppend(&text, "\n  size       ", FormatBytes(result.size_bytes), " (", result.size_bytes,
                  " bytes)\n  sha256     ", Printable(result.file_sha256), "\n");
  if (result.version.has_value()) {
    absl::StrAppend(&text, "  version    ", *result.version);
    if (result.serves) absl::StrAppend(&text, ", generation ", result.generation);
    absl::StrAppend(&text, "\n");
  }
  absl::StrAppend(&text, "  digest     ", Printable(result.weights_digest), "\n");
  return text;
}

absl::Status Push(Session& session) {
  PushOptions options;
  options.file = session.arguments().Get("as").value_or("");
  options.overwrite = session.arguments().Has("overwrite");
  options.wait = !session.arguments().Has("no-wait");
  const std::string& model = session.positional(0);
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  absl::StatusOr<PushResult> result = absl::UnknownError("");
  {
    ProgressBar progress(absl::StrCat("push to ", OneLine(model)));
    result = admin.Push(
        model, session.positional(1), options,
        // When all is sent, the server checks and loads it, and nobody knows for how long.
        [&](std::uint64_t sent, std::uint64_t total) {
          progress.Update(sent, sent == total ? 0 : total);
        },
        session.Call(absl::InfiniteDuration()));
  }
  RELIGHT_RETURN_IF_ERROR(result.status());
  if (session.json()) {
    session.PrintJson(ToJson(*result));
  } else {
    session.Print(Describe(model, *result));
  }
  const bool failed =
      result->state == VersionState::kRefused || result->state == VersionState::kRetrying;
  return failed ? absl::FailedPreconditionError(result->reason) : absl::OkStatus();
}

}  // namespace

Command PushCommand() {
  return {"push",
          "MODEL FILE",
          2,
          2,
          "bring a checkpoint to the server, and wait until it serves",
          kDetails,
          {{"as", "NAME", "what it is called in the watched folder"},
           {"overwrite", "", "replace an existing file"},
           {"no-wait", "", "end as soon as it is in the folder"}},
          Push};
}

}  // namespace relight::ctl
