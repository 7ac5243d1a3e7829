#include "server/rpc/download_call.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "absl/types/span.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "server/rpc/admin_messages.h"
#include "server/rpc/grpc_status.h"

namespace relight::rpc {
namespace {

// The next chunk; an empty one after the last.
absl::StatusOr<v1::DownloadResponse> ReadChunk(serving::OutgoingSnapshot& snapshot) {
  v1::DownloadResponse response;
  std::string& chunk = *response.mutable_chunk();
  chunk.resize(kMaxChunkBytes);
  RELIGHT_ASSIGN_OR_RETURN(
      const std::size_t size,
      snapshot.Read({reinterpret_cast<std::byte*>(chunk.data()), chunk.size()}));
  chunk.resize(size);
  return response;
}

}  // namespace

DownloadCall::DownloadCall(const TransferEnvironment& environment, CallSet<DownloadCall>& calls,
                           grpc::CallbackServerContext& context,
                           absl::StatusOr<serving::SnapshotRequest> request)
    : environment_(environment), calls_(calls), context_(context), request_(std::move(request)) {}

void DownloadCall::Begin() {
  timer_ = StallTimer::Create(environment_.stall_limit, [weak = weak_from_this()] {
    if (const std::shared_ptr<DownloadCall> self = weak.lock()) self->Stalled();
  });
  const bool open = calls_.Add(shared_from_this());
  MutexLock lock(mutex_);
  if (!request_.ok()) {
    ConcludeLocked(request_.status());
  } else if (!open) {
    ConcludeLocked(ShuttingDown());
  } else {
    working_ = environment_.pools.long_work.Run([self = shared_from_this()] { self->Make(); });
    if (!working_) ConcludeLocked(TooBusy());
  }
  PumpLocked();
}

void DownloadCall::Make() {
  const auto progress = [this](std::uint64_t written, std::uint64_t total) {
    return Progress(written, total);
  };
  auto snapshot = environment_.core.OpenSnapshot(*request_, progress);
  MutexLock lock(mutex_);
  working_ = false;
  made_ = true;
  if (snapshot.ok()) {
    outgoing_ = *std::move(snapshot);
    if (!outcome_.has_value()) {
      *pending_.emplace().mutable_result() = ToMessage(outgoing_->result());
    }
  } else {
    ConcludeLocked(snapshot.status());
  }
  PumpLocked();
}

bool DownloadCall::Progress(std::uint64_t written, std::uint64_t total) {
  MutexLock lock(mutex_);
  if (outcome_.has_value()) return false;
  v1::DownloadProgress& progress = *pending_.emplace().mutable_progress();
  progress.set_written_bytes(written);
  progress.set_total_bytes(total);
  PumpLocked();
  return true;
}

void DownloadCall::ReadOn() {
  absl::StatusOr<v1::DownloadResponse> chunk =
      WithinFence("the download", [this] { return ReadChunk(*outgoing_); });
  MutexLock lock(mutex_);
  working_ = false;
  if (!chunk.ok()) {
    ConcludeLocked(chunk.status());
  } else if (chunk->chunk().empty()) {
    ConcludeLocked(absl::OkStatus());
  } else if (!outcome_.has_value()) {
    pending_ = *std::move(chunk);
  }
  PumpLocked();
}

void DownloadCall::Release() {
  outgoing_.reset();
  MutexLock lock(mutex_);
  working_ = false;
  PumpLocked();
}

void DownloadCall::Stalled() {
  MutexLock lock(mutex_);
  if (finished_) return;
  spdlog::warn("a download was cut off: the client took too little for {}",
               absl::FormatDuration(environment_.stall_limit));
  context_.TryCancel();  // Nothing else ends a write that the client does not take.
}

void DownloadCall::ConcludeLocked(absl::Status outcome) {
  if (outcome_.has_value()) return;
  // What is still to be sent is worth nothing without the rest.
  if (!outcome.ok()) pending_.reset();
  outcome_ = std::move(outcome);
}

void DownloadCall::PumpLocked() {
  if (finished_) return;
  if (!writing_ && pending_.has_value()) {
    message_ = *std::move(pending_);
    pending_.reset();
    writing_ = true;
    timer_->WaitBegins();
    StartWrite(&message_);
  }
  if (made_ && !working_ && !pending_.has_value() && !outcome_.has_value()) {
    working_ = environment_.pools.transfers.Run([self = shared_from_this()] { self->ReadOn(); });
    if (!working_) ConcludeLocked(TooBusy());
  }
  const bool idle = !working_ && !writing_ && !pending_.has_value();
  if (idle && outcome_.has_value()) FinishLocked();
}

void DownloadCall::FinishLocked() {
  if (outgoing_ != nullptr) {
    working_ = environment_.pools.transfers.Run([self = shared_from_this()] { self->Release(); });
    if (working_) return;
    outgoing_.reset();  // The threads for that have ended, or have more to do than they can take.
  }
  finished_ = true;
  timer_->End();
  Finish(ToGrpcStatus(*outcome_));
}

void DownloadCall::OnWriteDone(bool ok) {
  MutexLock lock(mutex_);
  timer_->WaitEnds(message_.chunk().size());
  writing_ = false;
  if (!ok) ConcludeLocked(ClientGone());
  PumpLocked();
}

void DownloadCall::OnCancel() {
  MutexLock lock(mutex_);
  ConcludeLocked(ClientGone());
  PumpLocked();
}

void DownloadCall::OnDone() { calls_.Remove(this); }

}  // namespace relight::rpc
