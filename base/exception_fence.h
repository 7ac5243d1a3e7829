// Where exceptions end. Code of this project throws none, but memory runs out, and the standard
// library says so with one: at the outermost function of each piece of work that may fail alone
// (a load, a snapshot, a call) it becomes that work's status.
#ifndef RELIGHT_BASE_EXCEPTION_FENCE_H_
#define RELIGHT_BASE_EXCEPTION_FENCE_H_

#include <exception>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace relight {

// What `work` returns, an absl::Status or absl::StatusOr. RESOURCE_EXHAUSTED, beginning with
// `doing`, where it throws.
template <typename Work>
auto WithinFence(std::string_view doing, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::exception& error) {
    return absl::ResourceExhaustedError(absl::StrCat(absl::string_view(doing.data(), doing.size()),
                                                     " ran out of memory: ", error.what()));
  }
}

}  // namespace relight

#endif  // RELIGHT_BASE_EXCEPTION_FENCE_H_
