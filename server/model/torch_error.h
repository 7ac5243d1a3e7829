// Where LibTorch's exceptions end.
#ifndef RELIGHT_SERVER_MODEL_TORCH_ERROR_H_
#define RELIGHT_SERVER_MODEL_TORCH_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace relight::model {

// The one line of LibTorch's message that says what happened: no backtrace, no TorchScript
// traceback, escaped.
std::string TorchSentence(std::string_view what);

// The status of the exception being handled, as "`doing`: <sentence>". RESOURCE_EXHAUSTED where
// memory ran out, UNAVAILABLE where the device failed, else `code`. Call inside a catch block only.
absl::Status StatusOfCurrentException(std::string_view doing, absl::StatusCode code);

// The same for a forward: INVALID_ARGUMENT where the caller's shapes (possible only where
// `has_free_dimensions`) or indices are at fault, the same for memory and the device, else
// INTERNAL.
absl::Status StatusOfForwardException(bool has_free_dimensions);

// Calls `body`, which returns a Status or a StatusOr, and turns what it throws into one.
template <typename Body>
auto WithoutExceptions(std::string_view doing, absl::StatusCode code, Body&& body)
    -> decltype(body()) {
  try {
    return body();
  } catch (...) {
    return StatusOfCurrentException(doing, code);
  }
}

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCH_ERROR_H_
