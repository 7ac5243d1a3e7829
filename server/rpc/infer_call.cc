#include "server/rpc/infer_call.h"

#include <string>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/container/inlined_vector.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_decoder.h"
#include "server/rpc/wire_encoder.h"
#include "server/serving/failure.h"

namespace relight::rpc {
namespace {

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

absl::Status TakeSlices(const grpc::ByteBuffer& message, IncomingRequest& incoming) {
  if (message.TrySingleSlice(&incoming.only).ok()) {
    incoming.spans.push_back(SpanOf(incoming.only));
    return absl::OkStatus();
  }
  if (!message.Dump(&incoming.slices).ok()) {
    return absl::InvalidArgumentError("the request's message could not be read");
  }
  for (const grpc::Slice& slice : incoming.slices) incoming.spans.push_back(SpanOf(slice));
  return absl::OkStatus();
}

absl::Status Decode(const grpc::ByteBuffer& message, std::uint64_t max_bytes,
                    IncomingRequest& incoming, TranslatedRequest& out) {
  if (message.Length() > max_bytes) {
    return absl::ResourceExhaustedError(Concat("the request has ", message.Length(),
                                               " bytes, at most ", max_bytes,
                                               " are taken (--max-message-bytes)"));
  }
  RELIGHT_RETURN_IF_ERROR(TakeSlices(message, incoming));
  RELIGHT_ASSIGN_OR_RETURN(WireRequest wire, DecodeInferRequest(incoming.spans));
  return TranslateRequest(std::move(wire), max_bytes, out);
}

// Decodes `message` and hands it to the core, which keeps `incoming` for as long as it needs.
// `reply` is called exactly once, on any thread; `incoming` has its plan by then.
void StartInfer(InferEnvironment& environment, const grpc::ByteBuffer& message, absl::Time deadline,
                std::shared_ptr<const std::atomic<bool>> cancelled,
                std::shared_ptr<IncomingRequest> incoming, serving::InferDone reply) {
  TranslatedRequest translated;
  const absl::Status decoded =
      Decode(message, environment.max_message_bytes, *incoming, translated);
  incoming->plan = std::move(translated.plan);
  if (!decoded.ok()) {
    environment.core.CountInvalidRequest(incoming->plan.model);
    reply(decoded);
    return;
  }
  incoming->unpacked = std::move(translated.unpacked);
  const std::string_view model = incoming->plan.model;
  serving::InferRequest& request = translated.request;
  request.deadline = deadline;
  request.cancelled = std::move(cancelled);
  request.keep_alive = std::move(incoming);
  environment.core.Infer(model, std::move(request), std::move(reply));
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

InferCall::InferCall(InferEnvironment& environment, grpc::ByteBuffer& response)
    : environment_(environment), in_time_(environment.calls.Enter()), response_(response) {}

grpc::ServerUnaryReactor* InferCall::Start(InferEnvironment& environment,
                                           const grpc::CallbackServerContext& context,
                                           const grpc::ByteBuffer& request,
                                           grpc::ByteBuffer& response) {
  // One allocation for all that the call needs itself.
  const auto call = std::make_shared<InferCall>(environment, response);
  call->self_ = call;
  // gRPC answers for a call whose start has thrown, and knows nothing of this one.
  absl::Cleanup forget = [&call] { call->OnDone(); };
  StartInfer(environment, request, DeadlineOf(context), {call, &call->cancelled_},
             {call, &call->incoming_},
             [raw = call.get()](absl::StatusOr<serving::InferResult> result) {
               raw->Reply(std::move(result));
             });
  std::move(forget).Cancel();
  return call.get();
}

void InferCall::Reply(absl::StatusOr<serving::InferResult> result) {
  const ReplyPlan& plan = incoming_.plan;
  incoming_.unpacked.clear();
  if (result.ok() && cancelled_.load(std::memory_order_relaxed)) result = ClientGone();
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

void InferCall::OnCancel() { cancelled_.store(true, std::memory_order_relaxed); }

void InferCall::OnDone() {
  CallCount& calls = environment_.calls;
  const bool in_time = in_time_;
  self_.reset();  // The end of this, unless the core has it still.
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
  // Not part of the answer, which may have to wait for those before it.
  const auto incoming = std::make_shared<IncomingRequest>();
  StartInfer(
      environment_, message, deadline_, cancelled_, incoming,
      [self = shared_from_this(), answer, incoming](absl::StatusOr<serving::InferResult> result) {
        self->Reply(*answer, incoming->plan, std::move(result));
      });
}

void InferStream::Reply(Answer& answer, const ReplyPlan& plan,
                        absl::StatusOr<serving::InferResult> result) {
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
