// ModelInfer and ModelStreamInfer on raw byte buffers.
#ifndef RELIGHT_SERVER_RPC_INFER_CALL_H_
#define RELIGHT_SERVER_RPC_INFER_CALL_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/slice.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/rpc/call_set.h"
#include "server/rpc/infer_translation.h"
#include "server/rpc/wire_reader.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

// What every inference call needs; outlives them all.
struct InferEnvironment {
  serving::ServerCore& core;
  std::uint64_t max_message_bytes = 0;
  CallCount calls;
};

// What a call keeps of a request while the core has it.
struct IncomingRequest {
  grpc::Slice only;                 // Of a message that came in one piece.
  std::vector<grpc::Slice> slices;  // Of the others.
  absl::InlinedVector<ByteSpan, 4> spans;
  std::vector<std::vector<std::byte>> unpacked;
  ReplyPlan plan;
};

// One ModelInfer. It owns itself until it is done; the core may keep it, for the request's bytes,
// a little longer.
class InferCall final : public grpc::ServerUnaryReactor {
 public:
  static grpc::ServerUnaryReactor* Start(InferEnvironment& environment,
                                         const grpc::CallbackServerContext& context,
                                         const grpc::ByteBuffer& request,
                                         grpc::ByteBuffer& response);
  InferCall(InferEnvironment& environment, grpc::ByteBuffer& response);  // For Start.

  // OnCancel and OnDone only set a flag and free memory: gRPC need not wake a thread of its own to
  // call them, which otherwise happens once for every request.
  bool InternalInlineable() override { return true; }

 private:
  void OnCancel() override;
  void OnDone() override;
  void Reply(absl::StatusOr<serving::InferResult> result);

  InferEnvironment& environment_;
  const bool in_time_;
  grpc::ByteBuffer& response_;
  std::atomic<bool> cancelled_{false};
  IncomingRequest incoming_;
  std::shared_ptr<InferCall> self_;
};

// One ModelStreamInfer: requests run side by side, up to kMaxInFlight of them (then reading
// pauses), and are answered in their order. An error is an answer like any other, unless the client
// asked (by the header triton_grpc_error) that it end the stream.
class InferStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public std::enable_shared_from_this<InferStream> {
 public:
  static constexpr std::size_t kMaxInFlight = 64;

  InferStream(InferEnvironment& environment, CallSet<InferStream>& streams,
              const grpc::CallbackServerContext& context);

  void Begin();
  // Answers what has been read, then ends with UNAVAILABLE.
  void End();

 private:
  struct Answer {
    bool ready = false;
    grpc::ByteBuffer message;
    absl::Status error;  // Ends the stream.
  };

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  void Reply(Answer& answer, const ReplyPlan& plan, absl::StatusOr<serving::InferResult> result);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AbortLocked(absl::Status reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishIfIdleLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  InferEnvironment& environment_;
  CallSet<InferStream>& streams_;
  const absl::Time deadline_;
  const bool errors_end_stream_;
  const std::shared_ptr<std::atomic<bool>> cancelled_;
  grpc::ByteBuffer incoming_;  // gRPC's while a read is under way.
  grpc::ByteBuffer outgoing_;  // gRPC's while a write is under way.

  Mutex mutex_;
  std::deque<std::shared_ptr<Answer>> answers_ ABSL_GUARDED_BY(mutex_);  // In request order.
  std::size_t unanswered_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool no_more_reads_ ABSL_GUARDED_BY(mutex_) = false;
  bool aborted_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status final_status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_INFER_CALL_H_
