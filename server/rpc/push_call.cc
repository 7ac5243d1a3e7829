#include "server/rpc/push_call.h"

#include <string>
#include <utility>

#include "absl/types/span.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "server/rpc/admin_messages.h"
#include "server/rpc/concat.h"
#include "server/rpc/grpc_status.h"
#include "storage/bytes.h"

namespace relight::rpc {
namespace {

absl::Status OutOfTurn(std::string_view what) {
  return absl::InvalidArgumentError(
      Concat(what, ": a push is a header, then chunks, then a commit; nothing of it was kept"));
}

}  // namespace

PushCall::PushCall(const TransferEnvironment& environment, CallSet<PushCall>& calls,
                   v1::PushResponse& response)
    : environment_(environment), calls_(calls), response_(response) {}

void PushCall::Begin() {
  timer_ = StallTimer::Create(environment_.stall_limit, [weak = weak_from_this()] {
    if (const std::shared_ptr<PushCall> self = weak.lock()) self->Stalled();
  });
  const bool open = calls_.Add(shared_from_this());
  MutexLock lock(mutex_);
  if (!open) ConcludeLocked(ShuttingDown());
  PumpLocked();
}

void PushCall::End() {
  MutexLock lock(mutex_);
  if (!committing_) ConcludeLocked(ShuttingDown());
  PumpLocked();
}

void PushCall::Stalled() {
  MutexLock lock(mutex_);
  if (finished_ || all_read_) return;
  ConcludeLocked(absl::DeadlineExceededError(Concat("the client sent too little for ",
                                                    absl::FormatDuration(environment_.stall_limit),
                                                    "; nothing of the file was kept")));
  PumpLocked();
}

void PushCall::OnReadDone(bool ok) {
  timer_->WaitEnds(ok ? message_.chunk().size() : 0);
  MutexLock lock(mutex_);
  reading_ = false;
  arrived_ = ok;
  all_read_ = !ok || message_.has_commit();
  PumpLocked();
}

void PushCall::OnCancel() {
  MutexLock lock(mutex_);
  cancelled_ = true;
  ConcludeLocked(ClientGone());
  PumpLocked();
}

void PushCall::OnDone() { calls_.Remove(this); }

bool PushCall::Wanted() {
  MutexLock lock(mutex_);
  return !cancelled_;
}

void PushCall::ConcludeLocked(absl::Status outcome) {
  if (!outcome_.has_value()) outcome_ = std::move(outcome);
  if (!working_ || begun_) return;
  // What still waits for a thread need not be done.
  ++turn_;
  working_ = false;
}

void PushCall::PumpLocked() {
  if (finished_) return;
  if (arrived_ && !working_ && !outcome_.has_value()) HandOverLocked();
  if (!reading_ && !arrived_ && !all_read_ && !outcome_.has_value()) {
    reading_ = true;
    timer_->WaitBegins();
    StartRead(&message_);
  }
  if (working_) return;
  if (all_read_ && !arrived_) ConcludeLocked(OutOfTurn("the push ended without a commit"));
  if (outcome_.has_value()) FinishLocked();
}

void PushCall::HandOverLocked() {
  part_.Clear();
  part_.Swap(&message_);
  arrived_ = false;
  committing_ = part_.has_commit();
  // A commit waits for the model, and no chunk of another push should wait with it.
  AdminIo& io = committing_ ? environment_.pools.long_work : environment_.pools.transfers;
  begun_ = false;
  working_ = io.Run([self = shared_from_this(), turn = ++turn_] { self->Work(turn); });
  if (!working_) ConcludeLocked(TooBusy());
}

void PushCall::FinishLocked() {
  if (incoming_ != nullptr) {
    begun_ = true;  // Whatever comes, this is done.
    working_ = environment_.pools.transfers.Run([self = shared_from_this()] { self->Release(); });
    if (working_) return;
    incoming_.reset();  // The threads for that have ended, or have more to do than they can take.
  }
  finished_ = true;
  timer_->End();
  Finish(ToGrpcStatus(*outcome_));
}

void PushCall::Release() {
  incoming_.reset();
  MutexLock lock(mutex_);
  working_ = false;
  PumpLocked();
}

void PushCall::Work(std::uint64_t turn) {
  {
    MutexLock lock(mutex_);
    if (turn != turn_) return;
    begun_ = true;
  }
  absl::Status status = WithinFence("the push", [this] { return Take(part_); });
  const bool over = part_.has_commit() || !status.ok();
  if (over) incoming_.reset();
  MutexLock lock(mutex_);
  working_ = false;
  if (over) ConcludeLocked(std::move(status));
  PumpLocked();
}

absl::Status PushCall::Take(const v1::PushRequest& part) {
  if (part.has_header()) {
    if (incoming_ != nullptr) return OutOfTurn("a second header came");
    RELIGHT_ASSIGN_OR_RETURN(incoming_, environment_.core.BeginPush(FromMessage(part.header())));
    return absl::OkStatus();
  }
  if (incoming_ == nullptr) return OutOfTurn("no header came first");
  if (part.has_commit()) return Commit(part.commit());
  if (part.part_case() != v1::PushRequest::kChunk) return OutOfTurn("an empty message came");
  if (part.chunk().empty()) return OutOfTurn("an empty chunk came");
  if (part.chunk().size() > kMaxChunkBytes) {
    return absl::InvalidArgumentError(Concat("a chunk of ", part.chunk().size(),
                                             " bytes came, and one may have ", kMaxChunkBytes,
                                             ": send smaller ones; nothing of the file was kept"));
  }
  return incoming_->Write(storage::AsBytes(part.chunk()));
}

absl::Status PushCall::Commit(const v1::PushCommit& commit) {
  RELIGHT_ASSIGN_OR_RETURN(const serving::PushResult result,
                           incoming_->Commit(commit.file_sha256(), [this] { return Wanted(); }));
  response_ = ToMessage(result);
  return absl::OkStatus();
}

}  // namespace relight::rpc
