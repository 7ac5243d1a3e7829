#include "client/ctl/session.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::ctl {
namespace {

constexpr char kDefaultServer[] = "localhost:8001";
constexpr char kSystemSocket[] = "/run/relight/admin.sock";

std::string Environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool IsSocket(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode);
}

// A path names a socket; everything else is a target as it stands, such as "dns:///host:1".
std::string ToTarget(const std::string& text) {
  const std::size_t slash = text.find('/');
  const bool is_path = slash != std::string::npos && text.find(':') > slash;
  return is_path ? absl::StrCat("unix:", text) : text;
}

// Where the daemon puts its socket unless it is told otherwise.
std::vector<std::string> UsualSockets() {
  std::vector<std::string> paths;
  if (const std::string runtime = Environment("XDG_RUNTIME_DIR"); !runtime.empty()) {
    paths.push_back(absl::StrCat(runtime, "/relight/admin.sock"));
  }
  paths.emplace_back(kSystemSocket);
  return paths;
}

absl::StatusOr<std::string> AdminTarget(const Arguments& arguments) {
  if (const auto flag = arguments.Get("admin")) return ToTarget(*flag);
  if (const std::string named = Environment("RELIGHT_ADMIN_SOCKET"); !named.empty()) {
    return ToTarget(named);
  }
  const std::vector<std::string> paths = UsualSockets();
  for (const std::string& path : paths) {
    if (IsSocket(path)) return absl::StrCat("unix:", path);
  }
  return absl::UnavailableError(
      absl::StrCat("found no admin socket at ", absl::StrJoin(paths, " or "),
                   ": is relightd running? Its log says where its socket is (\"listening\"): name "
                   "that with --admin or RELIGHT_ADMIN_SOCKET"));
}

absl::StatusOr<bool> WantsColor(const Arguments& arguments) {
  const std::string when = arguments.Get("color").value_or("auto");
  if (when == "always") return true;
  if (when == "never") return false;
  if (when != "auto") {
    return UsageError(absl::StrCat("--color is \"", Escape(when), "\", not auto, always or never"));
  }
  return isatty(STDOUT_FILENO) == 1 && Environment("NO_COLOR").empty() &&
         Environment("TERM") != "dumb";
}

// A target that no server can have is the caller's mistake.
template <typename T>
absl::StatusOr<T> AsUsageError(absl::StatusOr<T> connection) {
  if (absl::IsInvalidArgument(connection.status())) {
    return UsageError(std::string(connection.status().message()));
  }
  return connection;
}

}  // namespace

absl::StatusOr<absl::Duration> ParseTimeout(const std::string& text) {
  double seconds = 0;
  absl::Duration duration;
  if (absl::SimpleAtod(text, &seconds) && !std::isnan(seconds)) {
    duration = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &duration)) {
    return UsageError(
        absl::StrCat("--timeout is \"", Escape(text), "\", not a time such as 30s, 500ms or 2m"));
  }
  if (!(duration >= absl::ZeroDuration())) {
    return UsageError(absl::StrCat("--timeout is \"", Escape(text), "\", which is before now"));
  }
  return duration == absl::ZeroDuration() ? absl::InfiniteDuration() : duration;
}

absl::StatusOr<Session> Session::Create(Arguments arguments) {
  Session session(std::move(arguments));
  const std::string from_environment = Environment("RELIGHT_SERVER");
  session.server_ = ToTarget(session.arguments_.Get("server").value_or(
      from_environment.empty() ? kDefaultServer : from_environment));
  session.json_ = session.arguments_.Has("json");
  RELIGHT_ASSIGN_OR_RETURN(session.color_, WantsColor(session.arguments_));
  if (const auto timeout = session.arguments_.Get("timeout")) {
    RELIGHT_ASSIGN_OR_RETURN(session.timeout_, ParseTimeout(*timeout));
  }
  return session;
}

absl::StatusOr<client::Client> Session::ConnectServer() const {
  return AsUsageError(client::Client::Connect(server_));
}

absl::StatusOr<client::AdminClient> Session::ConnectAdmin() const {
  RELIGHT_ASSIGN_OR_RETURN(const std::string target, AdminTarget(arguments_));
  return AsUsageError(client::AdminClient::Connect(target));
}

client::CallOptions Session::Call(absl::Duration usual) const {
  client::CallOptions options;
  options.timeout = timeout_.value_or(usual);
  return options;
}

absl::StatusOr<std::optional<std::int64_t>> Session::GetInteger(std::string_view flag) const {
  const std::optional<std::string> text = arguments_.Get(flag);
  if (!text.has_value()) return std::nullopt;
  std::int64_t value = 0;
  if (!absl::SimpleAtoi(*text, &value) || value < 0) {
    return UsageError(absl::StrCat("--", std::string(flag), " is \"", Escape(*text),
                                   "\", not a whole number from 0 on"));
  }
  return value;
}

void Session::Print(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void Session::PrintJson(const nlohmann::ordered_json& value, bool one_line) const {
  using Json = nlohmann::ordered_json;
  Print(value.dump(one_line ? -1 : 2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace relight::ctl
