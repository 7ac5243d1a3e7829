#include "server/serving/failure.h"

namespace relight::serving {

std::string_view Name(FailureReason reason) {
  switch (reason) {
    case FailureReason::kRejected:
      return "rejected";
    case FailureReason::kCancelled:
      return "cancelled";
    case FailureReason::kDeadline:
      return "deadline";
    case FailureReason::kInvalid:
      return "invalid";
    case FailureReason::kUnavailable:
      return "unavailable";
    case FailureReason::kInternal:
      break;
  }
  return "internal";
}

FailureReason ReasonOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kCancelled:
      return FailureReason::kCancelled;
    case absl::StatusCode::kDeadlineExceeded:
      return FailureReason::kDeadline;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return FailureReason::kInvalid;
    case absl::StatusCode::kUnavailable:
      return FailureReason::kUnavailable;
    default:
      return FailureReason::kInternal;
  }
}

absl::Status Draining() { return absl::UnavailableError("the server is draining"); }

}  // namespace relight::serving
