// The commands that show what is served: status, history, watch.
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/ctl/admin_json.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"

namespace relight::ctl {
namespace {

using client::Candidate;
using client::HistoryEntry;
using client::LoadedVersion;
using client::ModelState;
using client::ModelStatus;
using client::ServerStatus;
using client::VersionState;

constexpr absl::Duration kUsualTimeout = absl::Seconds(10);

constexpr char kStatusDetails[] =
    R"(Shows what each model serves. With a MODEL, everything about it: the versions in memory and every
file of its folder, each with what became of it and why.

columns: the model, its state (waiting, serving, failed, unloaded), the version that answers, the
generation (how many swaps there were), the digest of the weights, their file, the time since they
were loaded, and why the newest checkpoint is not the one that is served.

examples:
  relightctl status
  relightctl status simplenet
  relightctl status --json | jq -r '.models[] | select(.state != "serving") | .name'
)";

constexpr char kHistoryDetails[] =
    R"(Lists what happened to a model, newest first: what was served, refused (and why), pinned, rolled
back, unloaded, and which snapshots were taken.

examples:
  relightctl history simplenet
  relightctl history simplenet --limit 20 --json
)";

constexpr char kWatchDetails[] =
    R"(Prints a line for every model (or for one MODEL), then another whenever its status changes, until
it is interrupted or --timeout passes. With --json each line is one JSON object, as "status" has it.

examples:
  relightctl watch
  relightctl watch simplenet --json | jq --unbuffered .version
)";

Color ColorOf(ModelState state) {
  switch (state) {
    case ModelState::kServing:
      return Color::kGreen;
    case ModelState::kFailed:
      return Color::kRed;
    case ModelState::kWaiting:
      return Color::kYellow;
    default:
      return Color::kNone;
  }
}

Color ColorOf(VersionState state) {
  switch (state) {
    case VersionState::kServing:
      return Color::kGreen;
    case VersionState::kRefused:
      return Color::kRed;
    case VersionState::kRetrying:
    case VersionState::kWaiting:
    case VersionState::kLoading:
      return Color::kYellow;
    case VersionState::kPassedOver:
      return Color::kDim;
    default:
      return Color::kNone;
  }
}

std::string AgeOf(const std::optional<absl::Time>& time) {
  return time.has_value() ? FormatAge(absl::Now() - *time) : "-";
}

std::string TimeOf(const std::optional<absl::Time>& time) {
  return time.has_value() ? FormatLocalTime(*time) : "-";
}

std::string ServedVersion(const ModelStatus& status) {
  const LoadedVersion* const serving = status.Serving();
  if (serving == nullptr) return "-";
  const bool pinned = status.pinned_version == serving->version;
  return absl::StrCat(serving->version, pinned ? " (pinned)" : "");
}

// Why things are not as one would wish: the last error, else the reason of the state.
const std::string& Trouble(const ModelStatus& status) {
  return status.last_error.empty() ? status.reason : status.last_error;
}

Table ModelsTable(const std::vector<ModelStatus>& models) {
  Table table({"MODEL", "STATE", "VERSION", "GENERATION", "DIGEST", "FILE", "AGE", "LAST ERROR"});
  for (const ModelStatus& status : models) {
    const LoadedVersion* const serving = status.Serving();
    table.Add({OneLine(status.name),
               {std::string(Name(status.state)), ColorOf(status.state)},
               ServedVersion(status),
               absl::StrCat(status.generation),
               ShortDigest(serving == nullptr ? "" : serving->weights_digest),
               serving == nullptr ? "-" : OrDash(OneLine(serving->file)),
               AgeOf(status.last_good_load),
               {OneLine(Trouble(status)), Color::kRed}});
  }
  return table;
}

Table LoadedTable(const ModelStatus& status) {
  Table table({"VERSION", "STATE", "GENERATION", "DIGEST", "FILE", "LOADED", "TRAINING STATE"});
  for (const LoadedVersion& loaded : status.loaded) {
    table.Add({absl::StrCat(loaded.version),
               {std::string(Name(loaded.state)), ColorOf(loaded.state)},
               absl::StrCat(loaded.generation),
               OrDash(OneLine(loaded.weights_digest)),
               OrDash(OneLine(loaded.file)),
               TimeOf(loaded.loaded_at),
               loaded.training_state
                   ? "yes"
                   : absl::StrCat("no", loaded.training_state_reason.empty() ? "" : ": ",
                                  OneLine(loaded.training_state_reason))});
  }
  return table;
}

Table CandidatesTable(const ModelStatus& status) {
  Table table({"FILE", "VERSION", "STATE", "SIZE", "MODIFIED", "REASON"});
  for (const Candidate& candidate : status.candidates) {
    table.Add({OneLine(candidate.file),
               candidate.version.has_value() ? absl::StrCat(*candidate.version) : "-",
               {std::string(Name(candidate.state)), ColorOf(candidate.state)},
               FormatBytes(candidate.size_bytes),
               TimeOf(candidate.modified_at),
               OneLine(candidate.reason)});
  }
  return table;
}

std::string DetailLine(std::string_view title, const std::string& text) {
  if (text.empty()) return "";
  return absl::StrCat("  ", std::string(title), std::string(14 - title.size(), ' '), text, "\n");
}

std::string Indent(const std::string& table) {
  return absl::StrCat(
      "  ", absl::StrReplaceAll(table.substr(0, table.size() - 1), {{"\n", "\n  "}}), "\n");
}

std::string Details(const ModelStatus& status, bool color) {
  std::string text = absl::StrCat(
      Paint(OneLine(status.name), Color::kBold, color), "  ",
      Paint(Name(status.state), ColorOf(status.state), color), "\n",
      DetailLine("reason", Printable(status.reason)),
      DetailLine("last error", Paint(Printable(status.last_error), Color::kRed, color)),
      DetailLine("version rule", OneLine(status.version_rule)),
      DetailLine("pinned", status.pinned_version.has_value() ? absl::StrCat(*status.pinned_version)
                                                             : std::string()),
      DetailLine("device", OneLine(status.device)),
      DetailLine("last load", TimeOf(status.last_good_load)));
  if (!status.loaded.empty()) {
    absl::StrAppend(&text, "\n", Indent(LoadedTable(status).Render(color)));
  }
  if (!status.candidates.empty()) {
    absl::StrAppend(&text, "\n", Indent(CandidatesTable(status).Render(color)));
  }
  return text;
}

absl::Status Status(Session& session) {
  const bool one = !session.arguments().positionals().empty();
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  RELIGHT_ASSIGN_OR_RETURN(const ServerStatus status, WithProgress("waiting for the status", [&] {
                             return admin.GetStatus(one ? session.positional(0) : "",
                                                    session.Call(kUsualTimeout));
                           }));
  if (session.json()) {
    session.PrintJson(ToJson(status));
    return absl::OkStatus();
  }
  if (!one && !session.arguments().Has("candidates")) {
    session.Print(status.models.empty() ? "no models are configured\n"
                                        : ModelsTable(status.models).Render(session.color()));
    return absl::OkStatus();
  }
  std::vector<std::string> texts;
  for (const ModelStatus& model : status.models) texts.push_back(Details(model, session.color()));
  session.Print(absl::StrJoin(texts, "\n"));
  return absl::OkStatus();
}

Color ColorOf(client::HistoryEvent event) {
  switch (event) {
    case client::HistoryEvent::kServed:
      return Color::kGreen;
    case client::HistoryEvent::kRefused:
    case client::HistoryEvent::kConfigRefused:
      return Color::kRed;
    case client::HistoryEvent::kRetrying:
      return Color::kYellow;
    default:
      return Color::kNone;
  }
}

std::string TotalPhases(const HistoryEntry& entry) {
  absl::Duration total;
  for (const auto& [phase, duration] : entry.phases) total += duration;
  if (entry.phases.empty()) return "-";
  return absl::StrCat(absl::ToInt64Milliseconds(total), " ms");
}

absl::Status History(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(const std::optional<std::int64_t> limit, session.GetInteger("limit"));
  if (limit.value_or(0) > std::numeric_limits<std::uint32_t>::max()) {
    return UsageError("--limit is above 4294967295");
  }
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<HistoryEntry> entries,
                           WithProgress("waiting for the history", [&] {
                             return admin.GetHistory(session.positional(0),
                                                     static_cast<std::uint32_t>(limit.value_or(0)),
                                                     session.Call(kUsualTimeout));
                           }));
  if (session.json()) {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const HistoryEntry& entry : entries) array.push_back(ToJson(entry));
    session.PrintJson(array);
    return absl::OkStatus();
  }
  Table table({"TIME", "EVENT", "VERSION", "GENERATION", "DIGEST", "FILE", "TOOK", "REASON"});
  for (const HistoryEntry& entry : entries) {
    table.Add({TimeOf(entry.time),
               {std::string(Name(entry.event)), ColorOf(entry.event)},
               absl::StrCat(entry.version),
               entry.generation == 0 ? "-" : absl::StrCat(entry.generation),
               ShortDigest(entry.weights_digest),
               OrDash(OneLine(entry.file)),
               TotalPhases(entry),
               OneLine(entry.reason)});
  }
  session.Print(table.Render(session.color()));
  return absl::OkStatus();
}

std::string WatchLine(const ModelStatus& status, bool color) {
  const LoadedVersion* const serving = status.Serving();
  std::string line = absl::StrCat(Paint(FormatLocalTime(absl::Now()), Color::kDim, color), "  ",
                                  Paint(OneLine(status.name), Color::kBold, color), "  ",
                                  Paint(Name(status.state), ColorOf(status.state), color));
  if (serving != nullptr) {
    absl::StrAppend(&line, "  version ", ServedVersion(status), "  generation ",
                    serving->generation, "  digest ", ShortDigest(serving->weights_digest),
                    "  file ", OrDash(OneLine(serving->file)));
  }
  if (!Trouble(status).empty()) {
    absl::StrAppend(&line, "  ", Paint(OneLine(Trouble(status)), Color::kRed, color));
  }
  return line + "\n";
}

absl::Status Watch(Session& session) {
  const bool one = !session.arguments().positionals().empty();
  RELIGHT_ASSIGN_OR_RETURN(client::AdminClient admin, session.ConnectAdmin());
  return admin.Watch(
      one ? session.positional(0) : "",
      [&](const ModelStatus& status) {
        if (session.json()) {
          session.PrintJson(ToJson(status), /*one_line=*/true);
        } else {
          session.Print(WatchLine(status, session.color()));
        }
        return true;
      },
      session.Call(absl::InfiniteDuration()));
}

}  // namespace

Command StatusCommand() {
  return {"status",
          "[MODEL]",
          0,
          1,
          "show what is served, from which file, and what is wrong",
          kStatusDetails,
          {{"candidates", "", "show every file of every model's folder, too"}},
          Status};
}

Command HistoryCommand() {
  return {"history",
          "MODEL",
          1,
          1,
          "list what was served, refused and retired",
          kHistoryDetails,
          {{"limit", "N", "at most so many entries; 0 (the default) for all that are kept"}},
          History};
}

Command WatchCommand() {
  return {"watch",       "[MODEL]", 0,    1, "print a line whenever something changes",
          kWatchDetails, {},        Watch};
}

}  // namespace relight::ctl
