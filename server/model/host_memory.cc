#include "server/model/host_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/model/tensor_memory.h"

namespace relight::model {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

std::optional<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream file(path);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<std::uint64_t> ReadNumber(const std::string& path) {
  const std::optional<std::string> text = ReadSmallFile(path);
  std::uint64_t value = 0;
  if (!text || !absl::SimpleAtoi(*text, &value)) return std::nullopt;  // "max" among others.
  return value;
}

// The value of "key 123" or "key: 123 kB" in a file of such lines.
std::optional<std::uint64_t> FindField(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

void Limit(AvailableMemory& available, std::uint64_t bytes, const std::string& by) {
  if (bytes < available.bytes) available = {bytes, by};
}

struct CgroupFiles {
  std::string mount;   // "/sys/fs/cgroup/memory"
  std::string limit;   // "memory.limit_in_bytes"
  std::string usage;   // "memory.usage_in_bytes"
  std::string prefix;  // Of the fields in memory.stat that count the subtree: "total_".
};

// What one cgroup leaves: its limit less its use, of which the page cache can be taken back.
void LimitByCgroup(AvailableMemory& available, const std::string& root, const CgroupFiles& files,
                   const std::string& group) {
  const std::string folder = absl::StrCat(root, files.mount, group);
  const std::optional<std::uint64_t> limit = ReadNumber(absl::StrCat(folder, "/", files.limit));
  const std::optional<std::uint64_t> usage = ReadNumber(absl::StrCat(folder, "/", files.usage));
  if (!limit || !usage) return;
  std::uint64_t cache = 0;
  if (const auto stat = ReadSmallFile(absl::StrCat(folder, "/memory.stat"))) {
    cache = FindField(*stat, absl::StrCat(files.prefix, "inactive_file")).value_or(0) +
            FindField(*stat, absl::StrCat(files.prefix, "active_file")).value_or(0);
  }
  const std::uint64_t used = *usage - std::min(*usage, cache);
  Limit(available, *limit - std::min(*limit, used),
        absl::StrCat("the cgroup limit ", files.mount, group, "/", files.limit));
}

// The group itself and all above it. Inside a container the path may be the host's and not exist
// here; the mount's own root then is the container's group.
void LimitByCgroups(AvailableMemory& available, const std::string& root, const CgroupFiles& files,
                    std::string group) {
  while (!group.empty() && group != "/") {
    LimitByCgroup(available, root, files, group);
    group.resize(group.rfind('/'));
  }
  LimitByCgroup(available, root, files, "");
}

absl::Status TouchPages(std::byte* memory, std::size_t size_bytes) {
#ifdef MADV_POPULATE_WRITE
  if (madvise(memory, size_bytes, MADV_POPULATE_WRITE) == 0) return absl::OkStatus();
  if (errno == ENOMEM || errno == EFAULT) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot populate ", size_bytes, " bytes of memory: ", std::strerror(errno)));
  }
#endif
  // Kernels before 5.14.
  const std::size_t page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (std::size_t i = 0; i < size_bytes; i += page_bytes) {
    static_cast<volatile std::byte*>(memory)[i] = std::byte{0};
  }
  return absl::OkStatus();
}

}  // namespace

AvailableMemory ReadAvailableMemory(const std::string& root) {
  AvailableMemory available{std::numeric_limits<std::uint64_t>::max(), "nothing"};
  if (const auto meminfo = ReadSmallFile(root + "/proc/meminfo")) {
    if (const auto kibibytes = FindField(*meminfo, "MemAvailable:")) {
      Limit(available, *kibibytes * 1024, "MemAvailable");
    }
  }
  const CgroupFiles v1{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                       "total_"};
  const CgroupFiles v2{"/sys/fs/cgroup", "memory.max", "memory.current", ""};
  const std::string groups = ReadSmallFile(root + "/proc/self/cgroup").value_or("");
  for (const std::string& line : std::vector<std::string>(absl::StrSplit(groups, '\n'))) {
    // "hierarchy:controllers:path"; version 2 is "0::path".
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (parts[0] == "0") {
      LimitByCgroups(available, root, v2, parts[2]);
    } else if (std::find(controllers.begin(), controllers.end(), "memory") != controllers.end()) {
      LimitByCgroups(available, root, v1, parts[2]);
    }
  }
  return available;
}

absl::Status CheckFits(std::uint64_t size_bytes, const AvailableMemory& available) {
  const std::optional<std::uint64_t> needed = CheckedAdd(size_bytes, size_bytes / 16);
  if (needed && *needed <= available.bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(
      "weights need ", size_bytes, " bytes of host memory (and a sixteenth more while ",
      "loading), but only ", available.bytes, " bytes are available (by ",
      Escape(available.limited_by), "); free memory, raise the limit, or set arenas: 1"));
}

absl::Status CheckFits(std::uint64_t size_bytes) {
  if (CheckFits(size_bytes, ReadAvailableMemory()).ok()) return absl::OkStatus();
  TrimTensorMemory();
  return CheckFits(size_bytes, ReadAvailableMemory());
}

absl::StatusOr<std::shared_ptr<std::byte>> AllocateHostMemory(std::size_t size_bytes) {
  RELIGHT_RETURN_IF_ERROR(CheckFits(size_bytes));
  // Room to begin at a huge page where one fits.
  const bool huge = size_bytes >= kHugePageBytes;
  const std::size_t mapped_bytes =
      std::max<std::size_t>(size_bytes, 1) + (huge ? kHugePageBytes : 0);
  void* const mapping = mmap(nullptr, mapped_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot map ", size_bytes, " bytes of memory: ", std::strerror(errno)));
  }
  const std::shared_ptr<void> owner(
      mapping, [mapped_bytes](void* address) { munmap(address, mapped_bytes); });
  auto* memory = static_cast<std::byte*>(mapping);
  if (huge) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    memory += (kHugePageBytes - address % kHugePageBytes) % kHugePageBytes;
    madvise(memory, size_bytes, MADV_HUGEPAGE);  // A wish: the kernel may have none.
  }
  if (size_bytes > 0) RELIGHT_RETURN_IF_ERROR(TouchPages(memory, size_bytes));
  return std::shared_ptr<std::byte>(owner, memory);
}

}  // namespace relight::model
