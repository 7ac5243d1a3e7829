#include "server/rpc/infer_call.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_decoder.h"
#include "server/rpc/wire_encoder.h"
#include "server/serving/failure.h"

namespace relight::rpc {
namespace {

using InferReply = absl::AnyInvocable<void(absl::StatusOr<serving::InferResult>, const ReplyPlan&)>;

// A request's bytes and what was made of them; alive until the core is done with it.
struct RequestBytes {
  grpc::Slice only;                 // Of a message that came in one piece.
  std::vector<grpc::Slice> slices;  // Of the others.
  absl::InlinedVector<ByteSpan, 4> spans;
  std::vector<std::vector<std::byte>> unpacked;
};

// Nobody reads an answer then: ranking and encoding it would be for nothing.
absl::Status ClientGone() { return absl::CancelledError("the client has gone"); }

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return absl::FromChrono(deadline);
}

// A short slice holds its bytes within itself: it may not move from here on.
ByteSpan SpanOf(const grpc::Slice& slice) {
  return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()};
}

absl::Status TakeSlices(const grpc::ByteBuffer& message, RequestBytes& bytes) {
  if (message.TrySingleSlice(&bytes.only).ok()) {
    bytes.spans.push_back(SpanOf(bytes.only));
    return absl::OkStatus();
  }
  if (!message.Dump(&bytes.slices).ok()) {
    return absl::InvalidArgumentError("the request's message could not be read");
  }
  for (const grpc::Slice& slice : bytes.slices) bytes.spans.push_back(SpanOf(slice));
  return absl::OkStatus();
}

absl::Status Decode(const grpc::ByteBuffer& message, std::uint64_t max_bytes, RequestBytes& bytes,
                    TranslatedRequest& out) {
  if (message.Length() > max_bytes) {
    return absl::ResourceExhaustedError(Concat("the request has ", message.Length(),
                                               " bytes, at most ", max_bytes,
                                               " are taken (--max-message-bytes)"));
  }
  RELIGHT_RETURN_IF_ERROR(TakeSlices(message, bytes));
  RELIGHT_ASSIGN_OR_RETURN(WireRequest wire, DecodeInferRequest(bytes.spans));
  return TranslateRequest(std::move(wire), max_bytes, out);
}

// Decodes `message` and hands it to the core. `reply` is called exactly once, on any thread.
void StartInfer(InferEnvironment& environment, const grpc::ByteBuffer& message, absl::Time deadline,
                std::shared_ptr<const std::atomic<bool>> cancelled, InferReply reply) {
  auto bytes = std::make_shared<RequestBytes>();
  TranslatedRequest translated;
  const absl::Status decoded = Decode(message, environment.max_message_bytes, *bytes, translated);
  if (!decoded.ok()) {
    environment.core.CountInvalidRequest(translated.plan.model);
    reply(decoded, translated.plan);
    return;
  }
  bytes->unpacked = std::move(translated.unpacked);
  serving::InferRequest& request = translated.request;
  request.deadline = deadline;
  request.cancelled = std::move(cancelled);
  request.keep_alive = std::move(bytes);
  const std::string model = translated.plan.model;
  environment.core.Infer(
      model, std::move(request),
      [plan = std::move(translated.plan), reply = std::move(reply)](
          absl::StatusOr<serving::InferResult> result) mutable { reply(std::move(result), plan); });
}

grpc::Slice ToSlice(std::string text) {
  if (text.size() < kCopyBelowBytes) return {text.data(), text.size()};
  auto* owner = new std::string(std::move(text));
  return {owner->data(), owner->size(),
          [](void* user_data) { delete static_cast<std::string*>(user_data); }, owner};
}

grpc::Slice ToSlice(std::shared_ptr<const std::byte> data, std::uint64_t size_bytes) {
  using Owner = std::shared_ptr<const std::byte>;
  auto* owner = new Owner(std::move(data));
  // gRPC wants a mutable pointer and does not write through it.
  return {const_cast<std::byte*>(owner->get()), size_bytes,
          [](void* user_data) { delete static_cast<Owner*>(user_data); }, owner};
}

grpc::ByteBuffer ToByteBuffer(WireMessage message) {
  absl::InlinedVector<grpc::Slice, 4> slices;
  for (WireChunk& chunk : message) {
    if (!chunk.header.empty()) slices.push_back(ToSlice(std::move(chunk.header)));
    if (chunk.size_bytes > 0) slices.push_back(ToSlice(std::move(chunk.data), chunk.size_bytes));
  }
  return {slices.data(), slices.size()};
}

// Only classification needs to know how the model batches.
bool IsBatched(const serving::ServerCore& core, const ReplyPlan& plan) {
  if (plan.classes.empty()) return false;
  const auto info = core.GetModelInfo(plan.model);
  return info.ok() && (*info)->batching.max_batch_size > 0;
}

bool WantsErrorsAsStatus(const grpc::CallbackServerContext& context) {
  const auto& metadata = context.client_metadata();
  const auto it = metadata.find("triton_grpc_error");
  return it != metadata.end() && it->second == "true";
}

}  // namespace

InferCall::InferCall(InferEnvironment& environment, const grpc::CallbackServerContext& context,
                     const grpc::ByteBuffer& request, grpc::ByteBuffer& response)
    : environment_(environment),
      in_time_(environment.calls.Enter()),
      response_(response),
      cancelled_(std::make_shared<std::atomic<bool>>(false)) {
  StartInfer(environment_, request, DeadlineOf(context), cancelled_,
             [this](absl::StatusOr<serving::InferResult> result, const ReplyPlan& plan) {
               Reply(std::move(result), plan);
             });
}

void InferCall::Reply(absl::StatusOr<serving::InferResult> result, const ReplyPlan& plan) {
  if (result.ok() && cancelled_->load(std::memory_order_relaxed)) result = ClientGone();
  if (!result.ok()) return Finish(ToGrpcStatus(result.status()));
  const bool batched = IsBatched(environment_.core, plan);
  const absl::StatusOr<WireResponse> response =
      MakeResponse(plan, *result, batched, /*mark_final=*/false);
  if (!response.ok()) return Finish(ToGrpcStatus(response.status()));
  // Assignment would copy: ByteBuffer moves only by Swap.
  grpc::ByteBuffer message = ToByteBuffer(EncodeInferResponse(*response));
  response_.Swap(&message);
  Finish(grpc::Status::OK);
}

void InferCall::OnCancel() { cancelled_->store(true, std::memory_order_relaxed); }

void InferCall::OnDone() {
  CallCount& calls = environment_.calls;
  const bool in_time = in_time_;
  delete this;
  calls.Leave(in_time);
}

InferStream::InferStream(InferEnvironment& environment, CallSet<InferStream>& streams,
                         const grpc::CallbackServerContext& context)
    : environment_(environment),
      streams_(streams),
      deadline_(DeadlineOf(context)),
      errors_end_stream_(WantsErrorsAsStatus(context)),
      cancelled_(std::make_shared<std::atomic<bool>>(false)) {}

void InferStream::Begin() {
  const bool open = streams_.Add(shared_from_this());
  if (!open) return End();
  MutexLock lock(mutex_);
  PumpLocked();
}

void InferStream::End() {
  MutexLock lock(mutex_);
  if (no_more_reads_) return;
  no_more_reads_ = true;
  final_status_ = serving::Draining();
  PumpLocked();
}

void InferStream::OnReadDone(bool ok) {
  grpc::ByteBuffer message;
  auto answer = std::make_shared<Answer>();
  {
    MutexLock lock(mutex_);
    reading_ = false;
    no_more_reads_ = no_more_reads_ || !ok;
    if (no_more_reads_ || aborted_) return PumpLocked();
    message.Swap(&incoming_);
    answers_.push_back(answer);
    ++unanswered_;
    PumpLocked();
  }
  StartInfer(environment_, message, deadline_, cancelled_,
             [self = shared_from_this(), answer](absl::StatusOr<serving::InferResult> result,
                                                 const ReplyPlan& plan) {
               self->Reply(*answer, std::move(result), plan);
             });
}

void InferStream::Reply(Answer& answer, absl::StatusOr<serving::InferResult> result,
                        const ReplyPlan& plan) {
  if (result.ok() && cancelled_->load(std::memory_order_relaxed)) result = ClientGone();
  absl::Status error = result.status();
  grpc::ByteBuffer message;
  if (error.ok()) {
    const bool batched = IsBatched(environment_.core, plan);
    const auto response = MakeResponse(plan, *result, batched, plan.final_marker);
    error = response.status();
    if (error.ok()) ToByteBuffer(EncodeStreamResponse("", *response)).Swap(&message);
  }
  if (!error.ok() && !errors_end_stream_) {
    ToByteBuffer(EncodeStreamResponse(FitTrailer(MessageOf(error)), MakeErrorResponse(plan)))
        .Swap(&message);
    error = absl::OkStatus();
  }
  MutexLock lock(mutex_);
  answer.message.Swap(&message);
  answer.error = std::move(error);
  answer.ready = true;
  --unanswered_;
  PumpLocked();
}

void InferStream::AbortLocked(absl::Status reason) {
  if (aborted_ || finished_) return;
  aborted_ = true;
  final_status_ = std::move(reason);
  cancelled_->store(true, std::memory_order_relaxed);
}

void InferStream::PumpLocked() {
  if (finished_) return;
  if (!writing_ && !aborted_ && !answers_.empty() && answers_.front()->ready) {
    Answer& answer = *answers_.front();
    if (answer.error.ok()) {
      outgoing_.Swap(&answer.message);
      writing_ = true;
      StartWrite(&outgoing_);
    } else {
      AbortLocked(answer.error);
    }
    answers_.pop_front();
  }
  if (!reading_ && !no_more_reads_ && !aborted_ && answers_.size() < kMaxInFlight) {
    reading_ = true;
    StartRead(&incoming_);
  }
  FinishIfIdleLocked();
}

void InferStream::FinishIfIdleLocked() {
  if (writing_ || unanswered_ > 0) return;
  const bool all_answered = no_more_reads_ && answers_.empty();
  if (!aborted_ && !all_answered) return;
  finished_ = true;
  Finish(ToGrpcStatus(final_status_));
}

void InferStream::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  if (!ok) AbortLocked(ClientGone());
  PumpLocked();
}

void InferStream::OnCancel() {
  MutexLock lock(mutex_);
  AbortLocked(ClientGone());
  PumpLocked();
}

void InferStream::OnDone() { streams_.Remove(this); }

}  // namespace relight::rpc
