// One completion queue with its connections, over which requests are sent and answered.
#ifndef RELIGHT_BENCH_LOAD_LANE_H_
#define RELIGHT_BENCH_LOAD_LANE_H_

#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/status.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "bench/load/latencies.h"

namespace relight::bench {

// Nanoseconds of CLOCK_MONOTONIC.
std::int64_t NowNs();

// What every request of a run is. The message was serialised once, so that the client costs as
// little as it can: it runs beside the server.
struct Request {
  std::string target;  // "host:port".
  std::string method;  // "/package.Service/Method".
  grpc::ByteBuffer message;
};

class Lane {
 public:
  // Called on the lane's thread after each call that was answered, or failed.
  using OnDone = std::function<void(Lane& lane)>;

  // REQUIRES: connections > 0. `request` must outlive the lane.
  Lane(const Request& request, int connections, OnDone on_done);
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // UNAVAILABLE where a connection does not come about within seconds.
  absl::Status Connect();

  // Samples that were due before are not kept.
  void MeasureFrom(std::int64_t begin_ns) { measure_from_ns_ = begin_ns; }

  // Sends a request. From any thread, while the lane runs or before.
  void Send(std::int64_t due_ns);
  // Takes in the answers, until Stop and the last of them.
  void Run();
  // REQUIRES: nothing is sent any more.
  void Stop() { queue_.Shutdown(); }

  int under_way() const { return under_way_; }

  // After Run.
  const Latencies& latencies() const { return latencies_; }
  // How many calls failed, and the first message of each kind.
  struct Failures {
    std::uint64_t count = 0;
    std::string example;
  };
  const std::map<grpc::StatusCode, Failures>& failures() const { return failures_; }
  // The first answer; none where there was none.
  const std::optional<std::string>& first_answer() const { return first_answer_; }

 private:
  struct Call {
    std::optional<grpc::ClientContext> context;
    std::unique_ptr<grpc::GenericClientAsyncResponseReader> reader;
    grpc::ByteBuffer answer;
    grpc::Status status;
    std::int64_t due_ns = 0;
  };

  Call* Take();
  void Record(Call& call);
  void GiveBack(Call* call);

  const Request& request_;
  const OnDone on_done_;
  grpc::CompletionQueue queue_;
  std::vector<std::shared_ptr<grpc::Channel>> channels_;
  std::vector<std::unique_ptr<grpc::GenericStub>> stubs_;
  std::atomic<std::size_t> next_stub_{0};
  std::atomic<int> under_way_{0};
  std::atomic<std::int64_t> measure_from_ns_{0};

  Mutex mutex_;
  std::vector<std::unique_ptr<Call>> calls_ ABSL_GUARDED_BY(mutex_);  // All there are.
  std::vector<Call*> idle_ ABSL_GUARDED_BY(mutex_);

  // The lane's thread's.
  Latencies latencies_;
  std::map<grpc::StatusCode, Failures> failures_;
  std::optional<std::string> first_answer_;
};

}  // namespace relight::bench

#endif  // RELIGHT_BENCH_LOAD_LANE_H_
