// The commands snapshot and download: have the server write what a model serves, there or here.
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/admin_json.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"

namespace relight::ctl {
namespace {

using client::DownloadOptions;
using client::SnapshotFormat;
using client::SnapshotOptions;
using client::SnapshotResult;

constexpr char kDetails[] =
    R"(Writes what a model serves as a checkpoint that torch.load opens and training resumes from: the
weights, and the optimizer and whatever else came with them. PATH lies below the server's snapshot
folder (--snapshot-dir); without one the server names the file. An existing file is refused unless
--overwrite is given.

--format says what kind of file it is:
  bundle       as torch.save writes it: the weights and all that came with them
  state-dict   as torch.save writes it: the weights alone
  safetensors  the weights alone, in that format
Without it the suffix of PATH says so (.safetensors; .pt, .pth, .ckpt, .bin), else it is what the
checkpoint was.

Prints the path, size and SHA-256 of the file, and what of the checkpoint could not be carried, or
was written as something else. The first line is the path alone.

examples:
  relightctl snapshot simplenet
  relightctl snapshot simplenet kept/best.pt --overwrite --weights-only
  relightctl snapshot simplenet kept/best.safetensors
  relightctl snapshot simplenet --json | jq -r .path
)";

constexpr char kDownloadDetails[] =
    R"(Brings what a model serves to this machine, as "relightctl snapshot" would write it there: the
weights, and the optimizer and whatever else came with them. FILE appears once it is whole and its
SHA-256 was compared; nothing is kept on the server. An existing file is refused unless --overwrite
is given.

--format says what kind of file it is: bundle, state-dict or safetensors, see "relightctl snapshot
--help". Without it the suffix of FILE says so, else it is what the checkpoint was.

examples:
  relightctl download simplenet resume.pt
  relightctl download simplenet best.safetensors --version 100
  relightctl download simplenet best.pt --json | jq -r .file_sha256
)";

absl::StatusOr<SnapshotFormat> ParseFormat(const std::string& text) {
  constexpr SnapshotFormat kFormats[] = {SnapshotFormat::kBundle, SnapshotFormat::kStateDict,
                                         SnapshotFormat::kSafetensors};
  for (const SnapshotFormat format : kFormats) {
    if (text == Name(format)) return format;
  }
  return UsageError(
      absl::StrCat("--format is \"", Escape(text), "\", not bundle, state-dict or safetensors"));
}

// What both commands take.
template <typename Options>
absl::StatusOr<Options> MakeOptions(const Session& session) {
  Options options;
  RELIGHT_ASSIGN_OR_RETURN(options.version, session.GetInteger("version"));
  options.overwrite = session.arguments().Has("overwrite");
  options.weights_only = session.arguments().Has("weights-only");
  options.lossless = session.arguments().Has("lossless");
  if (const auto format = session.arguments().Get("format")) {
    RELIGHT_ASSIGN_OR_RETURN(options.format, ParseFormat(*format));
  }
  return options;
}

std::string Describe(const SnapshotResult& result) {
  std::string text = absl::StrCat(
      Printable(result.path), "\n  size       ", FormatBytes(result.size_bytes), " (",
      result.size_bytes, " bytes)\n  sha256     ", Printable(result.file_sha256), "\n  version    ",
      result.version, ", generation ", result.generation, "\n  digest     ",
      Printable(result.weights_digest), "\n  format     ", std::string(Name(result.format)),
      "\n  training   ",
      result.training_state ? "with the state that came with the weights" : "weights only", "\n");
  for (const std::string& left_out : result.left_out) {
    absl::StrAppend(&text, "  left out   ", OneLine(left_out), "\n");
  }
  for (const std::string& converted : result.converted) {
    absl::StrAppend(&text, "  converted  ", OneLine(converted), "\n");
  }
  return text;
}

void PrintResult(const Session& session, const SnapshotResult& result) {
  if (session.json()) {
    session.PrintJson(ToJson(result));
  } else {
    session.Print(Describe(result));
  }
}

absl::Status Snapshot(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(auto options, MakeOptions<SnapshotOptions>(session));
  if (session.arguments().positionals().size() > 1) options.path = session.positional(1);
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  absl::StatusOr<SnapshotResult> result = absl::UnknownError("");
  {
    ProgressBar progress(absl::StrCat("snapshot of ", OneLine(session.positional(0))));
    result = admin.Snapshot(
        session.positional(0), options,
        [&](std::uint64_t written, std::uint64_t total) { progress.Update(written, total); },
        session.Call(absl::InfiniteDuration()));
  }
  RELIGHT_RETURN_IF_ERROR(result.status());
  PrintResult(session, *result);
  return absl::OkStatus();
}

absl::Status Download(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(const auto options, MakeOptions<DownloadOptions>(session));
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  absl::StatusOr<SnapshotResult> result = absl::UnknownError("");
  {
    ProgressBar progress(absl::StrCat("download of ", OneLine(session.positional(0))));
    result = admin.DownloadSnapshot(
        session.positional(0), session.positional(1), options,
        [&](std::uint64_t received, std::uint64_t total) { progress.Update(received, total); },
        session.Call(absl::InfiniteDuration()));
  }
  RELIGHT_RETURN_IF_ERROR(result.status());
  PrintResult(session, *result);
  return absl::OkStatus();
}

// Of what both take.
std::vector<FlagSpec> Flags() {
  return {{"version", "N", "of this version, not the one that is served"},
          {"format", "FORMAT", "bundle, state-dict or safetensors"},
          {"overwrite", "", "replace an existing file"},
          {"weights-only", "", "leave the training state out"},
          {"lossless", "", "refuse rather than leave out what cannot be written"}};
}

}  // namespace

Command SnapshotCommand() {
  return {"snapshot", "MODEL [PATH]", 1,       2, "write what is served as a checkpoint",
          kDetails,   Flags(),        Snapshot};
}

Command DownloadCommand() {
  return {"download",       "MODEL FILE", 2,       2, "bring what is served here, as a checkpoint",
          kDownloadDetails, Flags(),      Download};
}

}  // namespace relight::ctl
