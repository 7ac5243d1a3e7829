// Wakes the user of a folder early: inotify where it works, time alone where it does not.
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <map>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/unique_fd.h"
#include "storage/folder.h"

namespace relight::storage {
namespace {

// Without IN_MODIFY: a copy in progress would wake its user for every write, and what matters comes
// with IN_CLOSE_WRITE. A writer that never closes is found by polling.
constexpr std::uint32_t kFolderEvents = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE |
                                        IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
// Of the folder above: the watched one may be made, replaced, or be a symlink that flips.
constexpr std::uint32_t kParentEvents = IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE;
constexpr int kMaxSubfolders = 256;

// Path of the folder above, and the last component.
std::pair<std::string, std::string> SplitPath(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

std::vector<std::string> Subfolders(const std::string& folder) {
  std::vector<std::string> found;
  DIR* stream = ::opendir(folder.c_str());
  if (stream == nullptr) return found;
  while (const dirent* entry = ::readdir(stream)) {
    if (entry->d_name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN)) {
      continue;
    }
    found.push_back(absl::StrCat(folder, "/", entry->d_name));
    if (found.size() >= kMaxSubfolders) break;
  }
  ::closedir(stream);
  return found;
}

class InotifyWatcher final : public FolderWatcher {
 public:
  InotifyWatcher(UniqueFd inotify, UniqueFd wake)
      : inotify_(std::move(inotify)), wake_(std::move(wake)) {}

  void Watch(const std::vector<std::string>& folders) override {
    std::map<int, Interest> interests;
    for (const std::string& folder : folders) {
      AddFolder(folder, interests);
      for (const std::string& subfolder : Subfolders(folder)) AddFolder(subfolder, interests);
    }
    // After the folders, because a folder's events replace those of an earlier call and a parent's
    // are added to them.
    for (const std::string& folder : folders) AddParent(folder, interests);
    std::vector<int> stale;
    {
      MutexLock lock(mutex_);
      for (const auto& [watch, interest] : interests_) {
        if (interests.count(watch) == 0) stale.push_back(watch);
      }
      interests_ = std::move(interests);
    }
    for (const int watch : stale) ::inotify_rm_watch(inotify_.get(), watch);
  }

  void Wait(absl::Duration timeout) override {
    using Clock = std::chrono::steady_clock;
    const bool forever = timeout >= absl::Hours(24 * 365);
    const Clock::time_point deadline =
        Clock::now() + (forever ? std::chrono::hours(1)
                                : absl::ToChronoNanoseconds(std::max(timeout, absl::Duration())));
    while (true) {
      int wait_ms = -1;
      if (!forever) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now());
        wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, INT_MAX));
      }
      pollfd ready[2] = {{inotify_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
      const int count = ::poll(ready, 2, wait_ms);
      if (count < 0 && errno != EINTR) return;
      // Both are drained, so that one stir of the folder is one return.
      const bool woken = DrainWake();
      if (DrainEvents() || woken) return;
      if (!forever && Clock::now() >= deadline) return;
    }
  }

  void Wake() override {
    const std::uint64_t one = 1;
    // Fails only where the counter is full, and then a wake is pending anyway.
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
  }

 private:
  struct Interest {
    bool all = false;
    std::set<std::string> names;
  };

  void AddFolder(const std::string& folder, std::map<int, Interest>& interests) {
    const int watch =
        ::inotify_add_watch(inotify_.get(), folder.c_str(), kFolderEvents | IN_ONLYDIR);
    if (watch >= 0) interests[watch].all = true;
  }

  void AddParent(const std::string& folder, std::map<int, Interest>& interests) {
    const auto [parent, name] = SplitPath(folder);
    const int watch = ::inotify_add_watch(inotify_.get(), parent.c_str(),
                                          kParentEvents | IN_ONLYDIR | IN_MASK_ADD);
    if (watch >= 0) interests[watch].names.insert(name);
  }

  bool DrainWake() {
    std::uint64_t count = 0;
    return ::read(wake_.get(), &count, sizeof(count)) == sizeof(count);
  }

  // Whether anything of interest was among the pending events.
  bool DrainEvents() {
    alignas(inotify_event) char buffer[16 << 10];
    bool interesting = false;
    while (true) {
      const ssize_t length = ::read(inotify_.get(), buffer, sizeof(buffer));
      if (length < 0 && errno == EINTR) continue;
      if (length <= 0) return interesting;
      MutexLock lock(mutex_);
      for (std::size_t at = 0; at + sizeof(inotify_event) <= static_cast<std::size_t>(length);) {
        inotify_event event;
        std::memcpy(&event, buffer + at, sizeof(event));
        const char* name = event.len > 0 ? buffer + at + sizeof(event) : "";
        interesting = IsInterestingLocked(event, name) || interesting;
        at += sizeof(event) + event.len;
      }
    }
  }

  bool IsInterestingLocked(const inotify_event& event, const char* name)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if ((event.mask & IN_Q_OVERFLOW) != 0) return true;
    if ((event.mask & IN_IGNORED) != 0) return false;
    const auto found = interests_.find(event.wd);
    if (found == interests_.end()) return false;
    return found->second.all || found->second.names.count(name) > 0;
  }

  const UniqueFd inotify_;
  const UniqueFd wake_;
  Mutex mutex_;
  std::map<int, Interest> interests_ ABSL_GUARDED_BY(mutex_);
};

// Where the kernel grants no inotify instance: waits, and can be woken.
class TimedWatcher final : public FolderWatcher {
 public:
  void Watch(const std::vector<std::string>&) override {}

  void Wait(absl::Duration timeout) override {
    MutexLock lock(mutex_);
    while (!woken_) {
      if (!changed_.WaitFor(mutex_, timeout)) break;
    }
    woken_ = false;
  }

  void Wake() override {
    MutexLock lock(mutex_);
    woken_ = true;
    changed_.SignalAll();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace

std::unique_ptr<FolderWatcher> MakeTimedFolderWatcher() { return std::make_unique<TimedWatcher>(); }

std::unique_ptr<FolderWatcher> MakeFolderWatcher() {
  UniqueFd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  UniqueFd wake(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!inotify.valid() || !wake.valid()) return MakeTimedFolderWatcher();
  return std::make_unique<InotifyWatcher>(std::move(inotify), std::move(wake));
}

}  // namespace relight::storage
