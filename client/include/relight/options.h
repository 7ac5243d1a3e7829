// How to reach a server, and how long a call may take.
#ifndef RELIGHT_OPTIONS_H_
#define RELIGHT_OPTIONS_H_

#include <stop_token>

#include "absl/time/time.h"

namespace relight::client {

struct ConnectOptions {
  // How long Connect waits for the server to answer the phone. Zero: it does not wait, and an
  // absent server shows in the first call (UNAVAILABLE).
  absl::Duration connect_timeout = absl::ZeroDuration();
  // Of every call that names no timeout of its own.
  absl::Duration call_timeout = absl::InfiniteDuration();
};

struct CallOptions {
  // From now to the end of the call (DEADLINE_EXCEEDED). Zero: the connection's call_timeout.
  absl::Duration timeout = absl::ZeroDuration();
  // Wait for a server that is not there yet, as long as `timeout` allows, where a call would
  // otherwise end with UNAVAILABLE at once.
  bool wait_for_server = false;
  // Ends the call with CANCELLED.
  std::stop_token stop = {};
};

}  // namespace relight::client

#endif  // RELIGHT_OPTIONS_H_
