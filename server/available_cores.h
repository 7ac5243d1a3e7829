// How many cores this process may keep busy.
#ifndef RELIGHT_SERVER_AVAILABLE_CORES_H_
#define RELIGHT_SERVER_AVAILABLE_CORES_H_

#include <string>

namespace relight {

// The CPUs that it may run on, or fewer where the CPU time of a cgroup above it (v1 or v2) is
// limited: a container with --cpus=2 has 2, on whatever machine; parts of a core count as one. At
// least 1. `root` stands in for "/" in tests. Unreadable files limit nothing. Thread-safe.
int AvailableCores(const std::string& root = "");

}  // namespace relight

#endif  // RELIGHT_SERVER_AVAILABLE_CORES_H_
