#include "server/rpc/grpc_log.h"

#include <spdlog/spdlog.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/escape.h"
#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

constexpr std::size_t kMaxTextBytes = 1024;
// A client can make gRPC log an error with every call.
constexpr absl::Duration kBetweenWarnings = absl::Minutes(1);

// Whether a warning is due; then the next one is not, for a while.
bool TakeWarning() {
  static std::atomic<std::int64_t> next{0};
  const absl::Time now = absl::Now();
  std::int64_t due = next.load(std::memory_order_relaxed);
  return absl::ToUnixNanos(now) >= due &&
         next.compare_exchange_strong(due, absl::ToUnixNanos(now + kBetweenWarnings));
}

void Log(gpr_log_func_args* line) {
  const std::string text = GrpcLogText(*line);
  if (line->severity == GPR_LOG_SEVERITY_ERROR && TakeWarning()) {
    spdlog::warn("{} (gRPC; further errors of the next minute are logged at level debug)", text);
  } else {
    spdlog::debug("{} (gRPC)", text);
  }
}

}  // namespace

std::string GrpcLogText(const gpr_log_func_args& line) {
  const std::string_view file = line.file;
  const std::size_t slash = file.rfind('/');  // npos + 1 is 0.
  return Concat(file.substr(slash + 1), ":", line.line, ": ", Escape(line.message, kMaxTextBytes));
}

void TakeOverGrpcLog() { gpr_set_log_function(&Log); }

}  // namespace relight::rpc
