// Where exceptions end. Code of this project throws none, but memory runs out, and the standard
// library says so with one: at the outermost function of each piece of work that may fail alone
// (a load, a snapshot, a call) it becomes that work's status.
#ifndef RELIGHT_BASE_EXCEPTION_FENCE_H_
#define RELIGHT_BASE_EXCEPTION_FENCE_H_

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace relight {

// What `work` returns, an absl::Status or absl::StatusOr. Where it throws, a status that begins
// with `doing`: RESOURCE_EXHAUSTED for memory that ran out, INTERNAL for anything else, which is a
// fault of this program.
template <typename Work>
auto WithinFence(std::string_view doing, Work&& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat(std::string(doing), " ran out of memory: ", error.what()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(std::string(doing), " failed: ", error.what()));
  }
}

}  // namespace relight

#endif  // RELIGHT_BASE_EXCEPTION_FENCE_H_
