#include "client/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <limits>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/escape.h"
#include "base/status_macros.h"

namespace relight::client {
namespace {

constexpr std::size_t kMaxSocketPathBytes = 107;  // sun_path, less its terminator.
constexpr int kInitialReconnectMs = 100;
constexpr int kMaxReconnectMs = 5000;

absl::Status CheckSocketTarget(std::string_view path) {
  if (path.empty()) return absl::InvalidArgumentError("target unix:: names no socket");
  if (path.size() > kMaxSocketPathBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("target unix:", Escape(path), ": the path has ", path.size(),
                     " bytes, a socket's path holds at most ", kMaxSocketPathBytes));
  }
  return absl::OkStatus();
}

absl::Status CheckTarget(std::string_view target) {
  if (target.starts_with("unix:")) return CheckSocketTarget(target.substr(5));
  for (std::string_view scheme : {"dns:", "ipv4:", "ipv6:", "xds:", "unix-abstract:"}) {
    if (target.starts_with(scheme)) return absl::OkStatus();
  }
  const std::size_t colon = target.rfind(':');
  const bool bracketed = target.starts_with("[");
  const bool has_port = colon != std::string_view::npos && colon > 0 &&
                        (bracketed ? target[colon - 1] == ']' : target.find(':') == colon);
  int port = 0;
  if (!has_port || !absl::SimpleAtoi(std::string(target.substr(colon + 1)), &port) || port < 1 ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat(
        "target \"", Escape(target), "\" is neither host:port nor unix:/path/of/a/socket"));
  }
  return absl::OkStatus();
}

// A proxy that the environment names for the outside cannot know this machine's own ports.
bool IsLocal(std::string_view target) {
  for (std::string_view prefix : {"unix", "localhost:", "127.", "[::1]:"}) {
    if (target.starts_with(prefix)) return true;
  }
  return false;
}

// gRPC reads its targets as URIs: what means something there is escaped in the path of a socket.
std::string ToUri(std::string_view target) {
  constexpr std::string_view kScheme = "unix:";
  if (!target.starts_with(kScheme)) return std::string(target);
  std::string uri(kScheme);
  for (const char c : target.substr(kScheme.size())) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("/-._~", c)) {
      uri += c;
    } else {
      absl::StrAppendFormat(&uri, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return uri;
}

grpc::ChannelArguments ChannelArgumentsFor(std::string_view target) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
  arguments.SetMaxSendMessageSize(std::numeric_limits<int>::max());
  // One Client is one connection: a back-off that another one earned is not shared.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // Not the minimum too: that is how long an attempt may take, on a slow network or a busy machine.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kInitialReconnectMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectMs);
  if (IsLocal(target)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout) {
  return absl::ToChronoTime(absl::Now() + timeout);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const std::string& target,
                                                           const ConnectOptions& options) {
  RELIGHT_RETURN_IF_ERROR(CheckTarget(target));
  std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(
      ToUri(target), grpc::InsecureChannelCredentials(), ChannelArgumentsFor(target));
  if (options.connect_timeout > absl::ZeroDuration() &&
      !channel->WaitForConnected(DeadlineAfter(options.connect_timeout))) {
    return absl::UnavailableError(absl::StrCat("no server answered at ", Escape(target), " within ",
                                               absl::FormatDuration(options.connect_timeout)));
  }
  return channel;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

CallContext::CallContext(const ConnectOptions& connection, const CallOptions& call)
    : on_stop_(call.stop, Canceller{&context_}) {
  const absl::Duration timeout =
      call.timeout == absl::ZeroDuration() ? connection.call_timeout : call.timeout;
  if (timeout != absl::InfiniteDuration()) context_.set_deadline(DeadlineAfter(timeout));
  context_.set_wait_for_ready(call.wait_for_server);
}

}  // namespace relight::client
