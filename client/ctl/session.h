// What a command works with: its arguments, the two connections, the way to print.
#ifndef RELIGHT_CLIENT_CTL_SESSION_H_
#define RELIGHT_CLIENT_CTL_SESSION_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/ctl/arguments.h"
#include "relight/admin.h"
#include "relight/client.h"

namespace relight::ctl {

class Session {
 public:
  // INVALID_ARGUMENT (a usage error) for a global flag that makes no sense.
  static absl::StatusOr<Session> Create(Arguments arguments);

  const Arguments& arguments() const { return arguments_; }
  const std::string& positional(std::size_t index) const { return arguments_.positionals()[index]; }
  bool json() const { return json_; }
  bool color() const { return color_; }
  const std::string& server() const { return server_; }

  absl::StatusOr<client::Client> ConnectServer() const;
  // UNAVAILABLE, naming the places that were looked at, where no socket is named and none is found.
  absl::StatusOr<client::AdminClient> ConnectAdmin() const;
  // With --timeout's value, or `usual` where the caller gave none.
  client::CallOptions Call(absl::Duration usual) const;

  // The value of an integer flag; a usage error for anything else.
  absl::StatusOr<std::optional<std::int64_t>> GetInteger(std::string_view flag) const;

  // To stdout, at once.
  void Print(std::string_view text) const;
  void PrintJson(const nlohmann::ordered_json& value, bool one_line = false) const;

 private:
  explicit Session(Arguments arguments) : arguments_(std::move(arguments)) {}

  Arguments arguments_;
  std::string server_;
  bool json_ = false;
  bool color_ = false;
  std::optional<absl::Duration> timeout_;
};

// "30s", "500ms", "2m"; a bare number is seconds, 0 is for ever. A usage error for anything else.
absl::StatusOr<absl::Duration> ParseTimeout(const std::string& text);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_SESSION_H_
