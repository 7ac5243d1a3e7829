#include "server/serving/leftovers.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include "absl/status/statusor.h"
#include "base/escape.h"
#include "base/unique_fd.h"

namespace relight::serving {

void RemoveLeftovers(const std::string& folder, storage::Reach reach) {
  if (folder.empty()) return;
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return;
  const absl::StatusOr<int> removed = storage::RemoveStaleTemporaries(fd.get(), reach);
  // Not worth failing for.
  if (!removed.ok()) {
    spdlog::warn("{}: {}", Escape(folder, 1024), std::string(removed.status().message()));
  } else if (*removed > 0) {
    spdlog::info("{}: removed {} unfinished files of a process that ended while it wrote them",
                 Escape(folder, 1024), *removed);
  }
}

}  // namespace relight::serving
