// Reads a small file that may be anything: a FIFO, a device, gigabytes.
#ifndef RELIGHT_SERVER_CONFIG_CONFIG_FILE_H_
#define RELIGHT_SERVER_CONFIG_CONFIG_FILE_H_

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace relight::config {

// The content of the regular file at `path`; never waits for a writer. NOT_FOUND where there is
// none, PERMISSION_DENIED where it may not be read, INVALID_ARGUMENT where it is no regular file or
// has more than `max_bytes`, UNAVAILABLE where reading fails.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, std::size_t max_bytes);

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_CONFIG_FILE_H_
