// One config of one model at work: its graph, its request path, its blocks of memory, the versions
// that are loaded, and what is remembered of its files. A changed config makes a new deployment
// beside the old one, which serves until the new one can.
//
// Threads: the manager's thread calls everything but what says otherwise; loads run on a loader's
// thread, which may also take the version before the served one out of memory to make room.
#ifndef RELIGHT_SERVER_SERVING_DEPLOYMENT_H_
#define RELIGHT_SERVER_SERVING_DEPLOYMENT_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "server/config/model_config.h"
#include "server/model/graph_factory.h"
#include "server/serving/arena.h"
#include "server/serving/checkpoint_loader.h"
#include "server/serving/golden_requests.h"
#include "server/serving/journal.h"
#include "server/serving/request_path.h"
#include "server/serving/version_policy.h"
#include "server/serving/version_record.h"

namespace relight::serving {

// What all models of a core share. It outlives them.
struct Surroundings {
  model::GraphFactory& factory;
  const Clock& clock;
  std::shared_ptr<ComputePool> compute;
  // Run a job on a thread that loads, or on the one for what comes after a swap. Tests run it
  // right here.
  std::function<void(std::function<void()>)> load;
  std::function<void(std::function<void()>)> after_swap;
  storage::ParallelFor parallel_for;
  // Has the manager look again; any thread.
  std::function<void()> wake;
  std::string spool_folder;
  std::string snapshot_folder;        // Empty: there are none.
  std::atomic<bool> stopping{false};  // Loads and background work end early.
  std::atomic<bool> draining{false};  // New requests are refused, and stay so.
};

class Deployment {
 public:
  // What the operator wants of the model.
  struct Orders {
    std::optional<std::int64_t> pin;
    bool unloaded = false;
  };

  // INVALID_ARGUMENT, FAILED_PRECONDITION, ...: what is wrong with the graph or its device.
  // INVALID_ARGUMENT where the graph or the config cannot be used: a watched folder that snapshots
  // would land in, say.
  static absl::StatusOr<std::unique_ptr<Deployment>> Create(config::ModelConfig config,
                                                            Surroundings& surroundings,
                                                            std::shared_ptr<Journal> journal);
  ~Deployment();
  Deployment(const Deployment&) = delete;
  Deployment& operator=(const Deployment&) = delete;

  const config::ModelConfig& config() const { return config_; }
  const model::Graph& graph() const { return *graph_; }
  const std::shared_ptr<RequestPath>& path() const { return path_; }

  // Lists the folder and remembers what it saw.
  void Scan();
  void ForceAll() { serving::ForceAll(memory_); }
  void ForceWhole(const std::string& file) { serving::ForceWhole(file, memory_); }
  void EndForce() { serving::EndForce(memory_); }
  // `serves_elsewhere`: what an older deployment of the model serves, while this one does not yet.
  Decision Decide(const Orders& orders,
                  std::optional<LoadedRow> serves_elsewhere = std::nullopt) const;
  // Carries out what Decide said; `next_generation` is for what it publishes. Returns whether that
  // is used up already; Collect says what a load made of it.
  bool Act(const Decision& decision, std::uint64_t next_generation);

  bool loading() const { return load_ != nullptr; }
  // Has the load under way end early; its result is dropped.
  void CancelLoad();
  // Takes in a load that has ended: publishes its version, or remembers why there is none. Returns
  // the generation that was published, 0 where none was.
  std::uint64_t Collect();

  // Makes a loaded generation current again, as `new_generation`. False where it is not loaded.
  bool MakeCurrent(std::uint64_t generation, std::uint64_t new_generation);

  // Takes everything out of memory, once no request is queued or running and nothing else holds the
  // request path. False: not yet. After true it may be destroyed.
  bool TryRetire();

  // --- any thread ---

  // What was loaded last first.
  std::vector<std::shared_ptr<VersionRecord>> Records() const;
  // The one that serves; null where none does.
  std::shared_ptr<VersionRecord> Current() const;
  std::optional<LoadedRow> CurrentRow() const;

 private:
  // A load under way. Shared with the thread that runs it.
  struct LoadUnderWay {
    LoadOrder order;
    std::string file;
    std::string stem;
    storage::FileIdentity listed;
    std::atomic<bool> cancelled{false};
    // What is still open of versions that made way for it. The loader's until there is a result.
    std::vector<std::shared_ptr<const void>> remains;
    Mutex mutex;
    std::optional<LoadResult> result ABSL_GUARDED_BY(mutex);
  };

  Deployment(config::ModelConfig config, std::unique_ptr<model::Graph> graph, Signature signature,
             GoldenRequests golden_requests, Surroundings& surroundings,
             std::shared_ptr<Journal> journal);

  void StartLoad(const Decision& decision, std::uint64_t generation);
  void RunLoad(const std::shared_ptr<LoadUnderWay>& load);
  void CloseRemains(LoadUnderWay& load);
  absl::StatusOr<std::shared_ptr<Arena::Lease>> MakeRoom(LoadUnderWay& load,
                                                         std::size_t size_bytes);
  // On a loading thread; not while the model itself waits for the load.
  void GiveWayToRequests() const;
  // Whether nobody waits for the load any more.
  bool InVain(const LoadUnderWay& load) const;
  void Pause();
  void Resume();

  std::uint64_t Publish(const LoadUnderWay& load, LoadResult result);
  void Remember(const LoadUnderWay& load, const LoadResult& result);
  // What of `loaded` the graph does not use, and what of the graph is not from it: which buffers a
  // state dict should hold, a TorchScript archive does not say. Empty where all fits.
  std::string PartialFit(const LoadedCheckpoint& loaded) const;
  void StartAftercare(const std::shared_ptr<VersionRecord>& record,
                      std::shared_ptr<const storage::Checkpoint> source);

  // Takes `record` out of the slot; what requests held of it comes back, to be destroyed.
  Slot::Handle Unpublish(const std::shared_ptr<VersionRecord>& record, const std::string& why);
  void DestroyOnLoader(Slot::Handle handle);
  void UnloadAll();
  std::vector<LoadedRow> LoadedRows() const;

  const config::ModelConfig config_;
  const PolicySettings settings_;
  const std::unique_ptr<model::Graph> graph_;
  const GoldenRequests golden_requests_;
  Surroundings& surroundings_;
  const std::shared_ptr<Journal> journal_;
  std::shared_ptr<RequestPath> path_;
  Arena arena_;

  // The manager's own.
  FolderMemory memory_;
  absl::Status listing_;
  std::shared_ptr<LoadUnderWay> load_;
  std::string partial_fit_;          // As it was logged last.
  std::atomic<bool> paused_{false};  // With one arena, while its weights are being replaced.

  // Versions that are out of the slot and still in use; each is destroyed on a loader's thread.
  std::atomic<int> dying_{0};

  mutable Mutex mutex_;
  std::vector<std::shared_ptr<VersionRecord>> records_ ABSL_GUARDED_BY(mutex_);  // Oldest first.
  std::uint64_t current_ ABSL_GUARDED_BY(mutex_) = 0;  // Generation; 0: none.
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_DEPLOYMENT_H_
