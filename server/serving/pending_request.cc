#include "server/serving/pending_request.h"

#include "absl/strings/str_cat.h"

namespace relight::serving {

DropReason ReasonToDrop(const InferRequest& request, absl::Time now) {
  // First: a call whose deadline passes is also cancelled, by the transport.
  if (request.deadline <= now) return DropReason::kDeadline;
  if (request.cancelled != nullptr && request.cancelled->load(std::memory_order_relaxed)) {
    return DropReason::kCancelled;
  }
  return DropReason::kNone;
}

DropReason ReasonToDrop(const PendingRequest& pending, absl::Time now) {
  const DropReason reason = ReasonToDrop(pending.request, now);
  if (reason != DropReason::kNone) return reason;
  return pending.queue_deadline <= now ? DropReason::kQueueTimeout : DropReason::kNone;
}

Failure DropFailure(DropReason reason, const InferRequest& request) {
  switch (reason) {
    case DropReason::kCancelled:
      return {FailureReason::kCancelled,
              absl::CancelledError("the client cancelled before work started")};
    case DropReason::kQueueTimeout:
      return {FailureReason::kDeadline,
              absl::UnavailableError(
                  absl::StrCat("the request waited in the queue for longer than its timeout of ",
                               absl::FormatDuration(request.queue_timeout), "; try again later"))};
    case DropReason::kDeadline:
    case DropReason::kNone:
      break;
  }
  return {FailureReason::kDeadline,
          absl::DeadlineExceededError("the deadline passed before work started")};
}

}  // namespace relight::serving
