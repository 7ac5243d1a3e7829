// The commands that change what is served: reload, pin, unpin, rollback, unload.
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/admin_json.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"

namespace relight::ctl {
namespace {

using client::AdminClient;
using client::CallOptions;
using client::LoadedVersion;
using client::ModelStatus;

// A load may take long, and giving up would not stop it.
constexpr absl::Duration kUsualTimeout = absl::InfiniteDuration();

constexpr char kReloadDetails[] =
    R"(Has the server look at the model's folder now, and waits until what it finds there is served or
refused. Loads a model that was unloaded. Fails (exit code 1) with the reason where the newest
checkpoint was refused; the version before it then serves on.

examples:
  relightctl reload simplenet
  cp step-200.pt models/simplenet/checkpoints/ && relightctl reload simplenet
)";

constexpr char kPinDetails[] =
    R"(Serves exactly this version, whatever else arrives, until it is unpinned. The pin survives a
restart of a server that has a --state-dir.

example:
  relightctl pin simplenet 100
)";

constexpr char kUnpinDetails[] = R"(Lets the model follow its newest checkpoint again.

example:
  relightctl unpin simplenet
)";

constexpr char kRollBackDetails[] =
    R"(Serves the version before the present one, and pins it, so that the next scan does not undo it.
One step back is instant, because the version before is still in memory.

example:
  relightctl rollback simplenet
)";

constexpr char kUnloadDetails[] =
    R"(Stops serving a model; requests for it are refused until "relightctl reload MODEL".

example:
  relightctl unload simplenet
)";

std::string Sentence(const ModelStatus& status) {
  const LoadedVersion* const serving = status.Serving();
  if (serving == nullptr) {
    return absl::StrCat(Printable(status.name), " is ", std::string(Name(status.state)),
                        status.reason.empty() ? "" : ": ", Printable(status.reason));
  }
  return absl::StrCat(Printable(status.name), " serves version ", serving->version, ", generation ",
                      serving->generation, ", digest ", Printable(serving->weights_digest),
                      status.pinned_version == serving->version ? " (pinned)" : "");
}

// What `call` returns, which waits until the model is as it should be.
template <typename Call>
auto WaitForModel(const Session& session, Call call) {
  return WithProgress(absl::StrCat("waiting for ", OneLine(session.positional(0))), call);
}

void PrintStatus(const Session& session, const ModelStatus& status) {
  if (session.json()) {
    session.PrintJson(ToJson(status));
  } else {
    session.Print(Sentence(status) + "\n");
  }
}

absl::Status Reload(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(AdminClient admin, session.ConnectAdmin());
  RELIGHT_ASSIGN_OR_RETURN(const client::ReloadResult result, WaitForModel(session, [&] {
                             return admin.Reload(session.positional(0),
                                                 session.Call(kUsualTimeout));
                           }));
  if (session.json()) {
    nlohmann::ordered_json json = ToJson(result.status);
    json["swapped"] = result.swapped;
    session.PrintJson(json);
  } else {
    session.Print(
        absl::StrCat(Sentence(result.status), result.swapped ? ", since now" : ", already", "\n"));
  }
  return absl::OkStatus();
}

absl::Status Pin(Session& session) {
  std::int64_t version = 0;
  if (!absl::SimpleAtoi(session.positional(1), &version) || version < 0) {
    return UsageError(absl::StrCat("VERSION is \"", Escape(session.positional(1)),
                                   "\", not a whole number from 0 on"));
  }
  RELIGHT_ASSIGN_OR_RETURN(AdminClient admin, session.ConnectAdmin());
  RELIGHT_ASSIGN_OR_RETURN(const ModelStatus status, WaitForModel(session, [&] {
                             return admin.Pin(session.positional(0), version,
                                              session.Call(kUsualTimeout));
                           }));
  PrintStatus(session, status);
  return absl::OkStatus();
}

// The commands that take a model and answer with its status.
using Method = absl::StatusOr<ModelStatus> (AdminClient::*)(const std::string&, const CallOptions&);

template <Method method>
absl::Status RunMethod(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(AdminClient admin, session.ConnectAdmin());
  RELIGHT_ASSIGN_OR_RETURN(const ModelStatus status, WaitForModel(session, [&] {
                             return (admin.*method)(session.positional(0),
                                                    session.Call(kUsualTimeout));
                           }));
  PrintStatus(session, status);
  return absl::OkStatus();
}

}  // namespace

Command ReloadCommand() {
  return {
      "reload",       "MODEL", 1,     1, "look at a model's folder now, and wait for the outcome",
      kReloadDetails, {},      Reload};
}

Command PinCommand() {
  return {"pin", "MODEL VERSION", 2, 2, "serve exactly this version", kPinDetails, {}, Pin};
}

Command UnpinCommand() {
  return {"unpin",
          "MODEL",
          1,
          1,
          "follow the newest checkpoint again",
          kUnpinDetails,
          {},
          RunMethod<&AdminClient::Unpin>};
}

Command RollBackCommand() {
  return {"rollback",
          "MODEL",
          1,
          1,
          "go back one version, and pin it",
          kRollBackDetails,
          {},
          RunMethod<&AdminClient::RollBack>};
}

Command UnloadCommand() {
  return {"unload",
          "MODEL",
          1,
          1,
          "stop serving a model until it is reloaded",
          kUnloadDetails,
          {},
          RunMethod<&AdminClient::Unload>};
}

}  // namespace relight::ctl
