#include "server/serving/slot.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "absl/time/clock.h"

namespace relight::serving {
namespace {

auto FindGeneration(std::vector<Slot::Handle>& loaded, std::uint64_t generation) {
  return std::find_if(loaded.begin(), loaded.end(), [generation](const Slot::Handle& handle) {
    return handle->generation == generation;
  });
}

}  // namespace

Slot::Handle Slot::Find(std::optional<std::int64_t> version) const {
  MutexLock lock(mutex_);
  // A file that was overwritten in place gives several generations of one version, and after going
  // back a generation the newest is not the one that is wanted.
  const bool current =
      !version.has_value() || (current_ != nullptr && current_->version == version);
  if (current) return current_;
  for (const Handle& handle : loaded_) {
    if (handle->version == version) return handle;
  }
  return nullptr;
}

std::vector<Slot::Handle> Slot::Loaded() const {
  MutexLock lock(mutex_);
  return loaded_;
}

std::vector<std::int64_t> Slot::LoadedVersions() const {
  std::vector<std::int64_t> versions;
  MutexLock lock(mutex_);
  for (const Handle& handle : loaded_) {
    if (std::find(versions.begin(), versions.end(), handle->version) == versions.end()) {
      versions.push_back(handle->version);
    }
  }
  return versions;
}

void Slot::Publish(Handle version) {
  Handle before;  // Dropped after the lock.
  MutexLock lock(mutex_);
  loaded_.insert(loaded_.begin(), version);
  before = std::exchange(current_, std::move(version));
}

bool Slot::MakeCurrent(std::uint64_t generation, std::uint64_t new_generation) {
  Handle before;  // Dropped after the lock.
  MutexLock lock(mutex_);
  const auto found = FindGeneration(loaded_, generation);
  if (found == loaded_.end()) return false;
  auto again = std::make_shared<ServedVersion>(**found);
  again->generation = new_generation;
  *found = again;
  before = std::exchange(current_, std::move(again));
  return true;
}

Slot::Handle Slot::Remove(std::uint64_t generation) {
  MutexLock lock(mutex_);
  const auto found = FindGeneration(loaded_, generation);
  if (found == loaded_.end()) return nullptr;
  Handle removed = std::move(*found);
  loaded_.erase(found);
  if (current_ == removed) current_.reset();
  return removed;
}

bool Slot::DestroyWhenUnused(Handle& handle, absl::Duration timeout) {
  // Polled: a notification would cost every batch something and would still miss a copy that
  // something other than a batch holds. Once the count is 1 nobody is left who could copy.
  constexpr auto kLongestPause = std::chrono::milliseconds(5);
  const absl::Time give_up = absl::Now() + timeout;
  auto pause = std::chrono::microseconds(20);
  // A batch that began before the version was published anew holds the model alone.
  while (handle.use_count() > 1 || (handle != nullptr && handle->model.use_count() > 1)) {
    if (absl::Now() >= give_up) return false;
    std::this_thread::sleep_for(pause);
    pause = std::min<std::chrono::microseconds>(pause * 2, kLongestPause);
  }
  handle.reset();
  return true;
}

}  // namespace relight::serving
