// The models of one repository, and the threads that look after them.
#ifndef RELIGHT_SERVER_SERVING_CORE_H_
#define RELIGHT_SERVER_SERVING_CORE_H_

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "server/serving/model_manager.h"
#include "server/serving/pin_store.h"
#include "server/serving/refusals.h"
#include "server/serving/repository.h"
#include "server/serving/server_core.h"
#include "server/serving/subscriptions.h"
#include "server/serving/worker_pool.h"
#include "storage/folder.h"

namespace relight::serving {

class Core final : public ServerCore {
 public:
  enum class Threads {
    kOwn,   // A manager, loaders, one for what comes after a swap.
    kNone,  // For tests: whoever calls RunOnce, or an admin call, is all of them.
  };

  static absl::StatusOr<std::unique_ptr<Core>> Start(const CoreOptions& options,
                                                     model::GraphFactory& factory,
                                                     const Clock& clock, Threads threads);
  ~Core() override;

  // One round of the manager: looks at every folder and does what is to be done. Only the manager's
  // thread calls it, or a test that has taken its place. Returns when to come back at the latest.
  absl::Time RunOnce();

  void Infer(std::string_view model, InferRequest request, InferDone done) override;
  absl::StatusOr<std::shared_ptr<const ModelInfo>> GetModelInfo(
      std::string_view model) const override;
  absl::StatusOr<bool> IsModelReady(std::string_view model,
                                    std::optional<std::int64_t> version) const override;
  bool IsReady() const override { return ready_; }
  std::vector<std::string> ModelNames() const override;
  absl::StatusOr<std::vector<std::pair<std::string, VersionStatistics>>> GetStatistics(
      std::string_view model, std::optional<std::int64_t> version) const override;
  std::vector<ModelStatistics> GetModelStatistics() const override;
  void CountInvalidRequest(std::string_view model) override;
  std::uint64_t MaxRequestBytes() const override;

  std::vector<ModelStatus> GetStatus() const override;
  absl::StatusOr<ModelStatus> GetStatus(std::string_view model) const override;
  absl::StatusOr<std::vector<HistoryEntry>> GetHistory(std::string_view model,
                                                       std::size_t limit) const override;
  absl::StatusOr<ReloadResult> Reload(std::string_view model) override;
  absl::StatusOr<ModelStatus> Pin(std::string_view model, std::int64_t version) override;
  absl::StatusOr<ModelStatus> Unpin(std::string_view model) override;
  absl::StatusOr<ModelStatus> RollBack(std::string_view model) override;
  absl::StatusOr<ModelStatus> Unload(std::string_view model) override;
  absl::StatusOr<SnapshotResult> Snapshot(const SnapshotRequest& request,
                                          const SnapshotProgress& progress) override;
  absl::StatusOr<std::unique_ptr<OutgoingSnapshot>> OpenSnapshot(
      const SnapshotRequest& request, const SnapshotProgress& progress) override;
  absl::StatusOr<std::unique_ptr<IncomingCheckpoint>> BeginPush(
      const PushRequest& request) override;
  std::unique_ptr<Subscription> Subscribe(
      std::function<void(const std::string& model)> on_change) override;
  bool Drain(absl::Time deadline) override;

 private:
  // What requests and readers see of a model.
  struct Entry {
    std::shared_ptr<ModelManager> manager;
    Front front;
  };
  using Entries = std::map<std::string, Entry, std::less<>>;

  Core(const CoreOptions& options, model::GraphFactory& factory, const Clock& clock, PinStore pins,
       Threads threads);

  absl::Status StartModels();
  void StartThreads();
  void RunManager();
  void ScanRepository(std::set<std::string>& changed);
  void AddModel(const std::string& name, std::set<std::string>& changed);
  void PublishEntries();
  static void StopAdmitting(const Entries& entries);
  void WatchFolders();

  std::shared_ptr<const Entries> entries() const;
  absl::StatusOr<Entry> Find(std::string_view model) const;
  absl::StatusOr<ReloadResult> Execute(std::string_view model, Command::Kind kind,
                                       std::int64_t version = 0, std::string file = "",
                                       const std::function<bool()>& wanted = {});
  absl::StatusOr<ModelStatus> ExecuteForStatus(std::string_view model, Command::Kind kind,
                                               std::int64_t version = 0);
  PushResult AwaitPushed(const std::string& model, const PushResult& pushed, bool wait,
                         const std::function<bool()>& wanted);
  void HandOutCommands();

  const CoreOptions options_;
  const Clock& clock_;
  const std::unique_ptr<storage::FolderWatcher> watcher_;
  Surroundings surroundings_;
  Subscriptions subscriptions_;
  Refusals refusals_;
  std::atomic<int> open_transfers_{0};
  std::atomic<bool> ready_{false};
  std::atomic<bool> stop_manager_{false};

  // The manager's own.
  PinStore pins_;
  RemovalCounter removals_;
  std::string repository_error_;
  std::map<std::string, std::shared_ptr<ModelManager>, std::less<>> models_;
  std::vector<std::shared_ptr<ModelManager>> removed_;
  std::map<std::string, std::uint64_t> last_generations_;  // Of models that were removed.

  mutable Mutex mutex_;
  std::shared_ptr<const Entries> entries_ ABSL_GUARDED_BY(mutex_) =
      std::make_shared<const Entries>();
  std::vector<std::pair<std::string, std::shared_ptr<Command>>> commands_ ABSL_GUARDED_BY(mutex_);
  std::set<std::shared_ptr<Command>> awaited_ ABSL_GUARDED_BY(mutex_);  // By admin threads.

  // In this order: what is submitted last ends first.
  std::unique_ptr<WorkerPool> loaders_;
  std::unique_ptr<WorkerPool> after_swap_;
  std::thread manager_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_CORE_H_
