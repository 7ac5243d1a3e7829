// System call failures as statuses.
#ifndef RELIGHT_STORAGE_POSIX_ERROR_H_
#define RELIGHT_STORAGE_POSIX_ERROR_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace relight::storage {

// What errno value `error` means, in words.
std::string ErrorText(int error);

// "`what`: <what errno says>". A full disk or quota is RESOURCE_EXHAUSTED, a missing name
// NOT_FOUND, an existing one ALREADY_EXISTS, missing rights PERMISSION_DENIED, and all else, I/O
// errors among it, UNAVAILABLE. `what` is escaped already.
absl::Status PosixError(std::string_view what, int error);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_POSIX_ERROR_H_
