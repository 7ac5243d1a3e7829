#include "storage/posix_error.h"

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace relight::storage {

std::string ErrorText(int error) { return std::generic_category().message(error); }

absl::Status PosixError(std::string_view what, int error) {
  const std::string message = absl::StrCat(std::string(what), ": ", ErrorText(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case ENOENT:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    default:
      return absl::UnavailableError(message);
  }
}

}  // namespace relight::storage
