// relightd: puts the layers together, waits for a signal, and takes them apart in order.

#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/available_cores.h"
#include "server/config/server_options.h"
#include "server/exit_guard.h"
#include "server/logging.h"
#include "server/model/torch_backend.h"
#include "server/rpc/rpc_server.h"
#include "server/serving/server_core.h"
#include "server/thread_plan.h"
#include "server/version.h"

namespace relight {
namespace {

constexpr std::size_t kMaxPathBytes = 1024;

// The buffers of messages come and go by the megabyte: glibc is to keep them, instead of having
// their pages made anew for each. These are the thresholds that it would come to by itself where
// one block of 32 MiB was freed. And it is to keep few heaps: of eight for each core some grow for
// days.
void SetUpHeap() {
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 64 << 20);
  ::mallopt(M_ARENA_MAX, std::max(2, AvailableCores()));
}

absl::Status EnsureFolder(const std::string& path, const char* flag, mode_t mode) {
  if (path.empty()) return absl::OkStatus();
  if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) {
    return absl::FailedPreconditionError(
        absl::StrCat(flag, ": cannot make folder ", Escape(path), ": ", std::strerror(errno)));
  }
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    return absl::FailedPreconditionError(absl::StrCat(flag, ": ", Escape(path), " is no folder"));
  }
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        flag, ": folder ", Escape(path), " cannot be written to: ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// Written aside and renamed, so that who waits for it never reads half of it.
absl::Status WritePortFile(const std::string& path, const rpc::RpcServer& server) {
  if (path.empty()) return absl::OkStatus();
  const std::string temporary = path + ".tmp";
  {
    std::ofstream file(temporary, std::ios::trunc);
    file << "grpc=" << server.grpc_port() << "\nmetrics=" << server.metrics_port()
         << "\nadmin=" << server.admin_port() << "\n";
    if (!file.flush()) {
      return absl::UnavailableError(absl::StrCat("--port-file: cannot write ", Escape(path)));
    }
  }
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(
        absl::StrCat("--port-file: cannot write ", Escape(path), ": ", std::strerror(errno)));
  }
  return absl::OkStatus();
}

void LogBackend(const ThreadPlan& threads) {
  const model::BackendInfo backend = model::DescribeBackend();
  spdlog::info("LibTorch {}, BLAS {}, {} CUDA devices; {} compute threads of {} intra-op threads",
               backend.libtorch_version, backend.blas, backend.cuda_devices, threads.compute,
               threads.intra_op);
  if (backend.slow_blas) {
    spdlog::warn(
        "the reference BLAS is linked ({}), which computes some 30 times slower than OpenBLAS: "
        "install libopenblas0-pthread",
        backend.blas);
  }
}

void LogListeners(const config::ServerOptions& options, const rpc::RpcServer& server) {
  std::string admin = Escape(options.admin_socket, kMaxPathBytes);
  if (server.admin_port() >= 0) absl::StrAppend(&admin, " and 127.0.0.1:", server.admin_port());
  std::string metrics = "nowhere";
  if (server.metrics_port() >= 0) {
    metrics = absl::StrCat(options.metrics_address, ":", server.metrics_port());
  }
  spdlog::info("listening: inference on {}:{}, metrics on {}, admin on {}", options.grpc_address,
               server.grpc_port(), metrics, admin);
}

// Waits for SIGTERM or SIGINT, which every thread has blocked; a second one then ends the process.
int WaitForStopSignal(const sigset_t& stop_signals) {
  int signal = 0;
  sigwait(&stop_signals, &signal);
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  pthread_sigmask(SIG_UNBLOCK, &stop_signals, nullptr);
  return signal;
}

// What is under way ends within this, or could not be ended at all.
constexpr absl::Duration kExitGrace = absl::Seconds(2);

void EndAtOnce() {
  spdlog::error(
      "something under way cannot be interrupted, and the time for it is over: ends at once");
  spdlog::default_logger()->flush();
  std::_Exit(1);
}

absl::Status Serve(const config::ServerOptions& options, const sigset_t& stop_signals) {
  std::optional<ExitGuard> guard;  // Outlives all that it watches the end of.
  RELIGHT_RETURN_IF_ERROR(EnsureFolder(options.state_dir, "--state-dir", 0700));
  RELIGHT_RETURN_IF_ERROR(EnsureFolder(options.snapshot_dir, "--snapshot-dir", 0755));

  const ThreadPlan threads = PlanThreads(options, AvailableCores());
  const std::unique_ptr<model::GraphFactory> backend =
      model::MakeTorchBackend({.intra_op_threads = threads.intra_op});
  LogBackend(threads);

  serving::CoreOptions core_options;
  core_options.model_repository = options.model_repository;
  core_options.state_dir = options.state_dir;
  core_options.snapshot_dir = options.snapshot_dir;
  core_options.poll_interval = options.poll_interval;
  core_options.compute_threads = threads.compute;
  core_options.load_threads = threads.load;
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<serving::ServerCore> core,
                           serving::StartServerCore(core_options, *backend, Clock::Real()));

  rpc::RpcOptions rpc_options;
  rpc_options.grpc_address = options.grpc_address;
  rpc_options.grpc_port = options.grpc_port;
  rpc_options.metrics_address = options.metrics_address;
  rpc_options.metrics_port = options.metrics_port;
  rpc_options.admin_socket = options.admin_socket;
  rpc_options.admin_port = options.admin_port;
  rpc_options.allow_model_control = options.allow_model_control;
  rpc_options.max_message_bytes = options.max_message_bytes;
  rpc_options.server_version = kVersion;
  RELIGHT_ASSIGN_OR_RETURN(const std::unique_ptr<rpc::RpcServer> server,
                           rpc::StartRpcServer(rpc_options, *core));
  RELIGHT_RETURN_IF_ERROR(WritePortFile(options.port_file, *server));
  LogListeners(options, *server);

  const int signal = WaitForStopSignal(stop_signals);
  spdlog::info("SIG{}: draining for at most {}", sigabbrev_np(signal),
               absl::FormatDuration(options.exit_timeout));
  guard.emplace(options.exit_timeout + kExitGrace, EndAtOnce);
  const absl::Time deadline = absl::Now() + options.exit_timeout;
  if (!server->DrainAndStop(deadline)) {
    spdlog::warn("--exit-timeout ({}) was over: what was still under way was cancelled",
                 absl::FormatDuration(options.exit_timeout));
  }
  spdlog::info("stopped");
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  absl::StatusOr<config::ServerOptions> options = config::ParseServerFlags(argc, argv);
  if (!options.ok()) {
    std::fprintf(stderr, "relightd: %s\n", std::string(options.status().message()).c_str());
    return 2;
  }
  model::ReexecuteWithBestBlasKernels(argv);
  SetUpHeap();
  SetUpLogging(options->log_level, options->log_format);

  // Blocked before the first thread starts, so that all inherit it and only main waits for them.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);

  spdlog::info("relightd {} starts", kVersion);
  if (const absl::Status status = Serve(*options, stop_signals); !status.ok()) {
    for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
      spdlog::error("{}", std::string(line));
    }
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace relight

int main(int argc, char** argv) { return relight::Main(argc, argv); }
