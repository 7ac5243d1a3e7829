// The command health: is the server, or one service of it, serving?
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "client/ctl/command.h"
#include "client/ctl/output.h"
#include "client/ctl/progress.h"

namespace relight::ctl {
namespace {

using client::Client;
using client::Health;

constexpr absl::Duration kUsualTimeout = absl::Seconds(5);
constexpr absl::Duration kUsualWait = absl::Seconds(60);
constexpr absl::Duration kPause = absl::Milliseconds(100);

constexpr char kDetails[] =
    R"(Asks the standard health service (grpc.health.v1) and prints "serving" or "not serving". Exits with
0 when it is serving, 1 when it is not, 3 when no server answers, 4 when the server does not know the
service. The server as a whole is serving once every configured model has served.

examples:
  relightctl health
  relightctl health --wait --timeout 30s && ./send-traffic
  relightctl health --service inference.GRPCInferenceService
)";

std::string_view Name(Health health) {
  switch (health) {
    case Health::kServing:
      return "serving";
    case Health::kNotServing:
      return "not serving";
    case Health::kServiceUnknown:
      return "unknown service";
    case Health::kUnknown:
      break;
  }
  return "unknown";
}

// Follows the server, through its restarts too, until it serves or the time is over.
absl::StatusOr<Health> WaitUntilServing(Session& session, Client& client,
                                        const std::string& service) {
  const absl::Time deadline = absl::Now() + session.Call(kUsualWait).timeout;
  Health health = Health::kUnknown;
  absl::Status status;
  const auto may_pass = [&] {
    return status.ok() || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
  };
  do {
    client::CallOptions options;
    options.timeout = deadline - absl::Now();
    options.wait_for_server = true;
    status = client.WatchHealth(
        service,
        [&](Health changed) {
          health = changed;
          return health != Health::kServing && health != Health::kServiceUnknown;
        },
        options);
    if (health == Health::kServing) return health;
    if (health == Health::kServiceUnknown) {
      return absl::NotFoundError(
          absl::StrCat(session.server(), " has no service \"", Escape(service), "\""));
    }
    // A server on its way down answers at once: do not ask it without pause.
    absl::SleepFor(std::min(kPause, deadline - absl::Now()));
  } while (may_pass() && absl::Now() < deadline);
  if (!may_pass()) return status;
  return absl::DeadlineExceededError(absl::StrCat(
      session.server(), health == Health::kUnknown
                            ? ": no server was there before the time was over"
                            : " was not serving before the time was over; \"relightctl "
                              "status\" says which model has nothing to serve"));
}

absl::Status CheckHealth(Session& session) {
  RELIGHT_ASSIGN_OR_RETURN(Client client, session.ConnectServer());
  const std::string service = session.arguments().Get("service").value_or("");
  RELIGHT_ASSIGN_OR_RETURN(
      const Health health,
      WithProgress(absl::StrCat("waiting for ", OneLine(session.server())), [&] {
        return session.arguments().Has("wait")
                   ? WaitUntilServing(session, client, service)
                   : client.CheckHealth(service, session.Call(kUsualTimeout));
      }));
  if (session.json()) {
    session.PrintJson({{"service", service}, {"status", std::string(Name(health))}});
  } else {
    session.Print(absl::StrCat(std::string(Name(health)), "\n"));
  }
  if (health == Health::kServing) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(session.server(), " is ", std::string(Name(health))));
}

}  // namespace

Command HealthCommand() {
  return {"health",
          "",
          0,
          0,
          "exit with 0 when the server is serving",
          kDetails,
          {{"service", "NAME", "of this service, not of the server as a whole"},
           {"wait", "", "wait until it is serving, for --timeout (default 60s)"}},
          CheckHealth};
}

}  // namespace relight::ctl
