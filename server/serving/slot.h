// Where the versions of a model that are in memory are published. A swap is one pointer exchange.
//
// Readers take a copy of the pointer once per batch, and at admission for a moment, and never wait
// for more than that exchange. The publishing side takes a version out with Remove, waits until the
// last batch has let go of it, and destroys it on its own thread: a request thread never frees a
// model. That holds because Remove hands out a reference of its own, kept until DestroyWhenUnused
// sees no other.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_SLOT_H_
#define RELIGHT_SERVER_SERVING_SLOT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/serving/served_version.h"

namespace relight::serving {

class Slot {
 public:
  // Held by whoever computes with the version, or looks at it; never outlives the batch.
  using Handle = std::shared_ptr<const ServedVersion>;

  // What answers requests for `version`: the current one where that is it, else the one of that
  // version that was loaded last. For those that name none: the current one. Null where there is
  // none.
  Handle Find(std::optional<std::int64_t> version) const;
  // What was loaded last first.
  std::vector<Handle> Loaded() const;
  // The numbers of what is loaded, what was loaded last first, each once.
  std::vector<std::int64_t> LoadedVersions() const;

  // Makes `version` current; the one before stays loaded. Returns once lookups see it.
  // REQUIRES: `version` is not null and its generation is newer than all before.
  void Publish(Handle version);
  // Makes what is loaded as `generation` current again, which is a swap too: from now on it is
  // `new_generation`. False where it is not loaded.
  // REQUIRES: `new_generation` is newer than all before.
  bool MakeCurrent(std::uint64_t generation, std::uint64_t new_generation);
  // Takes a generation out; lookups no longer see it, and where it was current nothing is. Null
  // where it is not loaded.
  Handle Remove(std::uint64_t generation);

  // Waits until `handle` is the only one left to its version and its model, then drops it on this
  // thread. False (and `handle` is kept) where `timeout` passes first.
  // REQUIRES: `handle` came from Remove (or is null, which is true at once).
  static bool DestroyWhenUnused(Handle& handle, absl::Duration timeout);

 private:
  mutable Mutex mutex_;
  Handle current_ ABSL_GUARDED_BY(mutex_);
  std::vector<Handle> loaded_ ABSL_GUARDED_BY(mutex_);  // What was loaded last first.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SLOT_H_
