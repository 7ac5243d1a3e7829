// Host memory for weights: big, aligned, its pages already there, and refused rather than
// overcommitted.
#ifndef RELIGHT_SERVER_MODEL_HOST_MEMORY_H_
#define RELIGHT_SERVER_MODEL_HOST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::model {

struct AvailableMemory {
  std::uint64_t bytes = 0;
  std::string limited_by;  // "MemAvailable", "the cgroup limit /a/b/memory.max".
};

// The least that the machine and every cgroup above this process (v1 and v2) still have to give;
// page cache counts as free. `root` stands in for "/" in tests. Unreadable files limit nothing.
AvailableMemory ReadAvailableMemory(const std::string& root = "");

// RESOURCE_EXHAUSTED with both numbers where `size_bytes`, and a sixteenth more for what loading
// itself takes, is not available.
absl::Status CheckFits(std::uint64_t size_bytes, const AvailableMemory& available);
// The same for what there is now; memory that is only kept for tensors makes room.
absl::Status CheckFits(std::uint64_t size_bytes);

// Zeroed, pages present (huge ones where the kernel has them), at least 64-byte aligned. Unmapped
// by the last owner. RESOURCE_EXHAUSTED as CheckFits. `size_bytes` may be 0.
absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostMemory(std::size_t size_bytes);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_HOST_MEMORY_H_
