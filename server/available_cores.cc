#include "server/available_cores.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace relight {
namespace {

// The kernel refuses a set that is too small for the machine's numbers.
int CoresToRunOn() {
  constexpr std::size_t kMaxCpus = std::size_t{1} << 20;
  for (std::size_t cpus = CPU_SETSIZE; cpus <= kMaxCpus; cpus *= 2) {
    std::vector<cpu_set_t> set(cpus / CPU_SETSIZE);
    const std::size_t size_bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, size_bytes, set.data()) == 0)
      return CPU_COUNT_S(size_bytes, set.data());
    if (errno != EINVAL) break;
  }
  return static_cast<int>(std::thread::hardware_concurrency());
}

// Microseconds of CPU time in each period; "max" and -1 are no quota.
void LimitByQuota(std::istream& quota_text, std::istream& period_text, int& cores) {
  double quota = 0;
  double period = 0;
  if (!(quota_text >> quota) || !(period_text >> period) || quota <= 0 || period <= 0) return;
  cores = static_cast<int>(std::min<double>(cores, std::ceil(quota / period)));
}

void LimitByCgroupV2(const std::string& folder, int& cores) {
  std::ifstream both(folder + "/cpu.max");
  LimitByQuota(both, both, cores);
}

void LimitByCgroupV1(const std::string& folder, int& cores) {
  std::ifstream quota(folder + "/cpu.cfs_quota_us");
  std::ifstream period(folder + "/cpu.cfs_period_us");
  LimitByQuota(quota, period, cores);
}

// The group itself and all above it. Inside a container the path may be the host's and not exist
// here; the mount's own root then is the container's group.
template <typename Limit>
void LimitByGroups(Limit limit, const std::string& mount, std::string group, int& cores) {
  while (!group.empty() && group != "/") {
    limit(mount + group, cores);
    group.resize(group.rfind('/'));
  }
  limit(mount, cores);
}

}  // namespace

int AvailableCores(const std::string& root) {
  int cores = CoresToRunOn();
  std::ifstream groups(root + "/proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    // "hierarchy:controllers:path"; version 2 is "0::path".
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || !parts[2].starts_with('/')) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (parts[0] == "0") {
      LimitByGroups(LimitByCgroupV2, root + "/sys/fs/cgroup", parts[2], cores);
    } else if (std::find(controllers.begin(), controllers.end(), "cpu") != controllers.end()) {
      // Distributions link "cpu" to the folder of the controllers that are mounted together.
      LimitByGroups(LimitByCgroupV1, root + "/sys/fs/cgroup/cpu", parts[2], cores);
    }
  }
  return std::max(cores, 1);
}

}  // namespace relight
