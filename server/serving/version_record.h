// What the manager keeps of a version that is in memory, beside what requests see: enough to write
// it out again as the checkpoint that it came from.
#ifndef RELIGHT_SERVER_SERVING_VERSION_RECORD_H_
#define RELIGHT_SERVER_SERVING_VERSION_RECORD_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/serving/arena.h"
#include "storage/checkpoint.h"
#include "storage/spool.h"
#include "storage/state_dict.h"
#include "storage/tree.h"
#include "storage/weights.h"

namespace relight::serving {

// What becomes known, and is set aside, after the version was swapped in.
struct Aftermath {
  bool complete = false;
  std::string file_sha256;
  // Whether a snapshot can hold what the checkpoint held beside the weights; if not, why.
  bool training_state = false;
  std::string training_state_reason = "it is still being set aside";
  std::shared_ptr<const storage::Spool> spool;
  // The source itself, where it is kept open instead.
  std::shared_ptr<const storage::Checkpoint> source;
};

// Thread-safe: constant but for the generation and the aftermath. Whoever holds one keeps its
// weights in memory, and its block from being used again.
struct VersionRecord {
  std::int64_t version = 0;
  // Going back to it gives it a new one. Only the manager's thread changes it.
  std::atomic<std::uint64_t> generation{0};
  std::string file;  // Below the watched folder; any bytes.
  std::string stem;
  storage::FileIdentity identity;
  // Of the file, or of the shards that it is an index of.
  storage::Format format = storage::Format::kZip;
  absl::Time loaded_at;

  std::shared_ptr<const storage::Tree> tree;
  std::vector<storage::StorageInfo> storages;
  storage::StateDict state_dict;
  storage::WeightPlan plan;
  storage::WeightsDigest digest;
  std::shared_ptr<const Arena::Lease> lease;

  // Set when it is taken out of memory: what is done for it in the background may stop.
  std::atomic<bool> retired{false};
  // Snapshots that wait for the aftermath: then it goes on although the version is retired.
  mutable std::atomic<int> awaited{0};

  // The open source stays with the record until what comes after the swap takes it, so that a
  // record that is let go of first takes it along.
  void KeepSource(std::shared_ptr<const storage::Checkpoint> source) {
    MutexLock lock(mutex_);
    source_ = std::move(source);
  }
  std::shared_ptr<const storage::Checkpoint> TakeSource() {
    MutexLock lock(mutex_);
    return std::exchange(source_, nullptr);
  }

  Aftermath aftermath() const {
    MutexLock lock(mutex_);
    return aftermath_;
  }
  void SetAftermath(Aftermath aftermath) {
    MutexLock lock(mutex_);
    aftermath_ = std::move(aftermath);
    changed_.SignalAll();
  }
  // Waits until the aftermath is complete; false where `timeout` passes first.
  bool AwaitAftermath(absl::Duration timeout) const {
    MutexLock lock(mutex_);
    if (!aftermath_.complete) changed_.WaitFor(mutex_, timeout);
    return aftermath_.complete;
  }

 private:
  mutable Mutex mutex_;
  mutable CondVar changed_;
  Aftermath aftermath_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const storage::Checkpoint> source_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_VERSION_RECORD_H_
