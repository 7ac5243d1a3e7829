// Where the versions of a model that are in memory are published. A swap is one pointer exchange.
//
// Readers take a copy of the pointer once per batch and never wait for more than that exchange. The
// publishing side takes a version out with Remove, waits until the last batch has let go of it, and
// destroys it on its own thread: a request thread never frees a model.
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
  // Held by whoever computes with the version; never outlives the batch.
  using Handle = std::shared_ptr<const ServedVersion>;

  // The version that answers requests which name none; null before the first.
  Handle Current() const;
  // The newest generation of `version`, where it is loaded; else null.
  Handle Find(std::int64_t version) const;
  // Newest generation first.
  std::vector<Handle> Loaded() const;

  // Makes `version` current; the one before stays loaded. Returns once lookups see it.
  void Publish(Handle version);
  // Makes a loaded generation current again. False where it is not loaded.
  bool MakeCurrent(std::uint64_t generation);
  // Takes a generation out; lookups no longer see it. Null where it is not loaded.
  Handle Remove(std::uint64_t generation);

  // Waits until `handle` is the only one left to its version, then drops it on this thread. False
  // (and `handle` is kept) where `timeout` passes first.
  static bool DestroyWhenUnused(Handle& handle, absl::Duration timeout);

 private:
  mutable Mutex mutex_;
  Handle current_ ABSL_GUARDED_BY(mutex_);
  std::vector<Handle> loaded_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SLOT_H_
