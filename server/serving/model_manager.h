// One model through its life: its config and the deployments made of it, what the operator wants,
// its history and status.
//
// Threads: the manager's thread calls everything but what says otherwise.
#ifndef RELIGHT_SERVER_SERVING_MODEL_MANAGER_H_
#define RELIGHT_SERVER_SERVING_MODEL_MANAGER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/serving/deployment.h"
#include "server/serving/journal.h"
#include "server/serving/pin_store.h"
#include "server/serving/server_core.h"
#include "server/serving/status.h"

namespace relight::serving {

// What an operator asks of a model, and the answer, which comes once the model is at rest again.
//
// Thread-safe: the manager answers, another thread waits.
class Command {
 public:
  enum class Kind {
    kReload,
    kPin,
    kUnpin,
    kRollBack,
    kUnload,
    kTakeIn,  // Do as the folder says, in which `file` is new and whole.
  };

  Command(Kind kind, std::int64_t version, std::string file = "")
      : kind_(kind), version_(version), file_(std::move(file)) {}

  Kind kind() const { return kind_; }
  std::int64_t version() const { return version_; }  // kPin
  const std::string& file() const { return file_; }  // kTakeIn

  void Answer(absl::StatusOr<ReloadResult> answer);
  // False where `timeout` passes before there is an answer.
  bool Await(absl::Duration timeout);
  // REQUIRES: there is one.
  absl::StatusOr<ReloadResult> answer() const;

 private:
  const Kind kind_;
  const std::int64_t version_;
  const std::string file_;
  mutable Mutex mutex_;
  CondVar answered_;
  std::optional<absl::StatusOr<ReloadResult>> answer_ ABSL_GUARDED_BY(mutex_);
};

// How requests reach a model. Cheap to copy.
struct Front {
  std::shared_ptr<RequestPath> path;  // Null while no config of the model could be used.
  std::shared_ptr<const ModelInfo> info;
  absl::Status unavailable;  // Why `path` is null.
};

class ModelManager {
 public:
  // `folder` holds model.textproto; its last component is the model's name. `last_generation` is
  // that of a model of this name that was removed before: generations never repeat.
  ModelManager(std::string name, std::string folder, Surroundings& surroundings, PinStore& pins,
               std::uint64_t last_generation = 0);
  // The deployments' loads have ended, and nothing uses the request path any more.
  ~ModelManager();

  const std::string& name() const { return name_; }

  // Reads the config and makes the graph, at start: all that is wrong with them.
  absl::Status Start();

  // Looks at config and folder once, does what is to be done, answers commands, and brings the
  // status up to date. Returns whether the status changed.
  bool Step();

  void Submit(std::shared_ptr<Command> command) { commands_.push_back(std::move(command)); }
  // Answers what is still waiting with `why`.
  void AnswerAll(const absl::Status& why);

  // When to look again although nothing happened.
  absl::Time wake() const { return wake_; }
  bool has_served() const { return has_served_; }
  std::uint64_t last_generation() const { return last_generation_; }
  // The folders to watch.
  std::vector<std::string> Folders() const;
  Front front() const;

  // Takes everything out of memory as soon as nothing uses it; true when done.
  bool TryRetire();

  // --- any thread ---

  std::shared_ptr<const ModelStatus> status() const;
  Journal& journal() { return *journal_; }
  const Journal& journal() const { return *journal_; }
  // What a snapshot of `version` (absent: the served one) is taken from. NOT_FOUND,
  // FAILED_PRECONDITION.
  struct SnapshotSource {
    std::shared_ptr<VersionRecord> record;
    config::ModelConfig config;
    std::vector<ParameterSpec> parameters;
  };
  absl::StatusOr<SnapshotSource> FindForSnapshot(std::optional<std::int64_t> version) const;
  // What takes the checkpoints of one config.
  struct PushTarget {
    config::ModelConfig config;
    std::vector<ParameterSpec> parameters;
  };
  // Newest config first: where a changed one waits for a checkpoint, the one before takes them too.
  // FAILED_PRECONDITION where there is none.
  absl::StatusOr<std::vector<PushTarget>> PushTargets() const;

 private:
  // What model.textproto and the graph file beside it were when they were read.
  using ConfigIdentity = std::vector<std::optional<storage::FileIdentity>>;

  ConfigIdentity IdentifyConfig() const;
  void CheckConfig();
  absl::StatusOr<std::unique_ptr<Deployment>> MakeDeployment();
  // Returns what was next before.
  std::unique_ptr<Deployment> SetNext(std::unique_ptr<Deployment> next);
  void SwitchToNext();
  void RetireOld();

  bool Loading() const;
  void Collect();
  // Decides and acts until nothing is left to do. Leaves the decision that describes the state.
  void Settle();
  // Decides for each deployment, and does the first thing that is to be done; whether there was
  // one.
  bool Look(bool act);
  void Overtake();
  void TakeCommand();
  absl::Status Begin(const Command& command);
  absl::Status BeginPin(std::int64_t version);
  absl::Status BeginRollBack();
  void AnswerCommand();
  absl::Status OutcomeOf(const Command& command);
  absl::Status OutcomeOfReload() const;
  absl::Status OutcomeOfPin(const Command& command);
  void Note(HistoryEvent event, std::string reason = "");
  std::uint64_t CurrentGeneration() const;
  std::string WhyConfigWaits() const;
  std::string WhyNotServing() const;
  std::string NoGraphText() const;
  std::shared_ptr<const ModelStatus> MakeStatus() const;
  void UpdateStatus();

  const std::string name_;
  const std::string folder_;
  Surroundings& surroundings_;
  PinStore& pins_;
  const std::shared_ptr<Journal> journal_ = std::make_shared<Journal>();

  ConfigIdentity config_identity_;                        // Of what was last tried.
  ConfigIdentity seen_identity_;                          // Of the scan before.
  absl::Time config_still_since_ = absl::InfinitePast();  // For how long it has been that.
  std::vector<std::string> named_files_;                  // By the config: parts of it.
  std::string config_error_;                              // Of what was last tried.
  absl::Time retry_config_ = absl::InfiniteFuture();

  std::vector<std::unique_ptr<Deployment>> old_;

  Deployment::Orders orders_;
  std::deque<std::shared_ptr<Command>> commands_;
  std::shared_ptr<Command> running_;
  std::uint64_t generation_before_ = 0;  // When `running_` began.
  Deployment::Orders orders_before_;     // Likewise.
  bool published_ = false;               // Whether a version was, since.
  std::uint64_t last_generation_ = 0;    // Of all deployments.
  bool has_served_ = false;
  bool changed_ = false;    // The status, since the last Step.
  Decision decision_;       // Of the active deployment.
  Decision next_decision_;  // Of the next, where there is one.
  absl::Time wake_ = absl::InfiniteFuture();

  mutable Mutex mutex_;
  // Changed by the manager's thread under the lock, so that it may read them without.
  std::unique_ptr<Deployment> active_;
  std::unique_ptr<Deployment> next_;  // Of a changed config, until it can serve.
  std::shared_ptr<const ModelStatus> status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ModelInfo> info_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_MODEL_MANAGER_H_
