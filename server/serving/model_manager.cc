#include "server/serving/model_manager.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/escape.h"
#include "base/log_fields.h"
#include "base/status_macros.h"

namespace relight::serving {
namespace {

constexpr absl::Duration kConfigRetry = absl::Seconds(10);
constexpr absl::Duration kConfigSettle = absl::Milliseconds(100);

std::string OneLine(std::string_view text) {
  return absl::StrReplaceAll({text.data(), text.size()}, {{"\n", "; "}});
}

// What waiting may cure, as opposed to what is wrong with the config or the graph.
bool MayPass(const absl::Status& status) {
  return status.code() != absl::StatusCode::kInvalidArgument &&
         status.code() != absl::StatusCode::kFailedPrecondition;
}

// What only looks at the folder and does as it says; the others say what is to serve.
bool FollowsTheFolder(Command::Kind kind) {
  return kind == Command::Kind::kReload || kind == Command::Kind::kTakeIn;
}

std::optional<storage::FileIdentity> Identify(const std::string& path) {
  absl::StatusOr<storage::FileIdentity> identity = storage::IdentifyFile(path);
  if (!identity.ok()) return std::nullopt;
  return *identity;
}

}  // namespace

void Command::Answer(absl::StatusOr<ReloadResult> answer) {
  MutexLock lock(mutex_);
  if (!answer_.has_value()) answer_ = std::move(answer);
  answered_.SignalAll();
}

bool Command::Await(absl::Duration timeout) {
  MutexLock lock(mutex_);
  const absl::Time give_up = absl::Now() + timeout;
  while (!answer_.has_value()) {
    const absl::Duration left = give_up - absl::Now();
    if (left <= absl::ZeroDuration()) return false;
    answered_.WaitFor(mutex_, left);
  }
  return true;
}

absl::StatusOr<ReloadResult> Command::answer() const {
  MutexLock lock(mutex_);
  return *answer_;
}

ModelManager::ModelManager(std::string name, std::string folder, Surroundings& surroundings,
                           PinStore& pins, std::uint64_t last_generation)
    : name_(std::move(name)),
      folder_(std::move(folder)),
      surroundings_(surroundings),
      pins_(pins),
      last_generation_(last_generation) {
  orders_.pin = pins_.Get(name_);
  UpdateStatus();
}

ModelManager::~ModelManager() { AnswerAll(absl::UnavailableError("the server stops")); }

absl::Status ModelManager::Start() {
  RELIGHT_ASSIGN_OR_RETURN(std::unique_ptr<Deployment> deployment, MakeDeployment());
  SetNext(std::move(deployment));
  SwitchToNext();
  UpdateStatus();
  return absl::OkStatus();
}

// --- config ---

ModelManager::ConfigIdentity ModelManager::IdentifyConfig() const {
  ConfigIdentity identity = {Identify(absl::StrCat(folder_, "/model.textproto"))};
  for (const std::string& path : named_files_) identity.push_back(Identify(path));
  return identity;
}

absl::StatusOr<std::unique_ptr<Deployment>> ModelManager::MakeDeployment() {
  // Each file is identified before it is read: what is saved meanwhile is a change.
  config_identity_ = {Identify(absl::StrCat(folder_, "/model.textproto"))};
  seen_identity_ = config_identity_;
  named_files_.clear();
  RELIGHT_ASSIGN_OR_RETURN(config::ModelConfig config, config::LoadModelConfig(folder_));
  const auto* torchscript = std::get_if<config::TorchScriptGraph>(&config.graph);
  if (torchscript != nullptr) named_files_.push_back(torchscript->path);
  for (const config::GoldenRequest& request : config.golden_requests) {
    named_files_.push_back(request.file);
  }
  for (const std::string& path : named_files_) config_identity_.push_back(Identify(path));
  seen_identity_ = config_identity_;
  return Deployment::Create(std::move(config), surroundings_, journal_);
}

void ModelManager::CheckConfig() {
  const ConfigIdentity identity = IdentifyConfig();
  const absl::Time now = surroundings_.clock.Now();
  if (identity != seen_identity_) {
    seen_identity_ = identity;
    config_still_since_ = now;
  }
  const bool retry = now >= retry_config_;
  if (!identity.front().has_value()) return;
  if (identity == config_identity_ && !retry) return;
  // A file that just changed may still be half written.
  if (now < config_still_since_ + kConfigSettle) return;
  // A deployment that is still loading is asked to stop first, and taken down when it has.
  if (next_ != nullptr) old_.push_back(SetNext(nullptr));

  absl::StatusOr<std::unique_ptr<Deployment>> next = MakeDeployment();
  retry_config_ = absl::InfiniteFuture();
  if (next.ok()) {
    config_error_.clear();
    SetNext(*std::move(next));
    return;
  }
  if (MayPass(next.status())) retry_config_ = now + kConfigRetry;
  const std::string error(next.status().message());
  if (error == config_error_) return;
  config_error_ = error;
  Note(HistoryEvent::kConfigRefused, error);
  const LogScope about({.model = name_, .event = Name(HistoryEvent::kConfigRefused)});
  spdlog::warn("model {}: the config is refused{}: {}", Escape(name_),
               active_ != nullptr ? ", and the one before stays" : "", OneLine(error));
}

std::unique_ptr<Deployment> ModelManager::SetNext(std::unique_ptr<Deployment> next) {
  MutexLock lock(mutex_);
  return std::exchange(next_, std::move(next));
}

void ModelManager::SwitchToNext() {
  std::unique_ptr<Deployment> before;
  {
    MutexLock lock(mutex_);
    before = std::exchange(active_, std::move(next_));
  }
  const bool first = before == nullptr;
  if (!first) old_.push_back(std::move(before));
  if (first) {
    const LogScope about({.model = name_});
    spdlog::info("model {}: watches {}", Escape(name_),
                 Escape(active_->config().checkpoints.folder, 1024));
    return;
  }
  Note(HistoryEvent::kConfigChanged);
  const LogScope about({.model = name_, .event = Name(HistoryEvent::kConfigChanged)});
  spdlog::info("model {}: the changed config is in use", Escape(name_));
}

void ModelManager::RetireOld() {
  std::erase_if(old_, [](const std::unique_ptr<Deployment>& old) { return old->TryRetire(); });
}

bool ModelManager::TryRetire() {
  AnswerAll(absl::NotFoundError(absl::StrCat("model ", Escape(name_), " was removed")));
  {
    MutexLock lock(mutex_);
    info_.reset();
    if (active_ != nullptr) old_.push_back(std::move(active_));
  }
  if (next_ != nullptr) old_.push_back(SetNext(nullptr));
  RetireOld();
  return old_.empty();
}

// --- one round ---

bool ModelManager::Step() {
  RetireOld();
  Collect();
  CheckConfig();
  if (next_ != nullptr) next_->Scan();
  if (active_ != nullptr) active_->Scan();
  Settle();
  UpdateStatus();
  return std::exchange(changed_, false);
}

bool ModelManager::Loading() const {
  return (next_ != nullptr && next_->loading()) || (active_ != nullptr && active_->loading());
}

void ModelManager::Collect() {
  for (Deployment* deployment : {next_.get(), active_.get()}) {
    if (deployment == nullptr) continue;
    const std::uint64_t generation = deployment->Collect();
    if (generation == 0) continue;
    last_generation_ = std::max(last_generation_, generation);
    has_served_ = true;
    published_ = true;
  }
  const bool nothing_to_keep = active_ == nullptr || active_->Current() == nullptr;
  if (next_ != nullptr && (next_->Current() != nullptr || nothing_to_keep) && !Loading()) {
    SwitchToNext();
  }
}

void ModelManager::Settle() {
  while (true) {
    Collect();
    TakeCommand();
    // A trainer that saves faster than its checkpoints load would never let the model come to rest.
    const bool answered_by_load =
        running_ != nullptr && published_ &&
        (FollowsTheFolder(running_->kind()) || running_->kind() == Command::Kind::kUnpin);
    if (Look(/*act=*/!answered_by_load)) continue;
    if (Loading() || running_ == nullptr) return;
    AnswerCommand();
  }
}

bool ModelManager::Look(bool act) {
  wake_ = retry_config_;
  if (seen_identity_ != config_identity_) {
    wake_ = std::min(wake_, config_still_since_ + kConfigSettle);
  }
  for (Deployment* deployment : {next_.get(), active_.get()}) {
    if (deployment == nullptr) continue;
    // A changed config does not send the model back to an older checkpoint.
    const bool serves_elsewhere = deployment == next_.get() && active_ != nullptr;
    Decision decision =
        deployment->Decide(orders_, serves_elsewhere ? active_->CurrentRow() : std::nullopt);
    wake_ = std::min(wake_, decision.wake);
    const bool act_now = act && decision.action != Decision::Action::kNothing && !Loading();
    if (act_now && deployment->Act(decision, last_generation_ + 1)) ++last_generation_;
    (deployment == active_.get() ? decision_ : next_decision_) = std::move(decision);
    if (act_now) return true;
  }
  return false;
}

// --- commands ---

// What changes what serves now does not wait for a reload to end.
void ModelManager::Overtake() {
  const auto urgent = [](const std::shared_ptr<Command>& command) {
    return !FollowsTheFolder(command->kind());
  };
  if (std::none_of(commands_.begin(), commands_.end(), urgent)) return;
  std::stable_partition(commands_.begin(), commands_.end(), urgent);
  if (running_ == nullptr || urgent(running_)) return;
  if (active_ != nullptr) active_->EndForce();
  if (next_ != nullptr) next_->EndForce();
  // A file that came is no order of its own: it is looked at again after this one.
  if (running_->kind() == Command::Kind::kTakeIn) {
    commands_.push_back(std::move(running_));
    return;
  }
  std::exchange(running_, nullptr)
      ->Answer(absl::AbortedError(
          "another order came in between and went first; reload again to know what came of it"));
}

void ModelManager::TakeCommand() {
  Overtake();
  while (running_ == nullptr && !commands_.empty()) {
    if (Loading()) {
      // Whatever is asked for, it begins from a model at rest.
      if (!FollowsTheFolder(commands_.front()->kind())) {
        if (next_ != nullptr) next_->CancelLoad();
        if (active_ != nullptr) active_->CancelLoad();
      }
      return;
    }
    running_ = std::move(commands_.front());
    commands_.pop_front();
    generation_before_ = CurrentGeneration();
    orders_before_ = orders_;
    published_ = false;
    if (const absl::Status status = Begin(*running_); !status.ok()) {
      std::exchange(running_, nullptr)->Answer(status);
    }
  }
}

absl::Status ModelManager::Begin(const Command& command) {
  if (active_ == nullptr && !FollowsTheFolder(command.kind())) {
    return absl::FailedPreconditionError(NoGraphText());
  }
  switch (command.kind()) {
    case Command::Kind::kReload:
      orders_.unloaded = false;
      break;
    case Command::Kind::kPin:
      RELIGHT_RETURN_IF_ERROR(BeginPin(command.version()));
      break;
    case Command::Kind::kUnpin:
      RELIGHT_RETURN_IF_ERROR(pins_.Set(name_, std::nullopt));
      orders_.pin.reset();
      Note(HistoryEvent::kUnpinned);
      return absl::OkStatus();
    case Command::Kind::kRollBack:
      RELIGHT_RETURN_IF_ERROR(BeginRollBack());
      break;
    case Command::Kind::kUnload:
      orders_.unloaded = true;
      Note(HistoryEvent::kUnloaded);
      return absl::OkStatus();
    case Command::Kind::kTakeIn:
      if (next_ != nullptr) next_->ForceWhole(command.file());
      if (active_ != nullptr) active_->ForceWhole(command.file());
      return absl::OkStatus();
  }
  if (next_ != nullptr) next_->ForceAll();
  if (active_ != nullptr) active_->ForceAll();
  return absl::OkStatus();
}

absl::Status ModelManager::BeginPin(std::int64_t version) {
  const auto loaded = active_->Records();
  const bool is_loaded = std::any_of(
      loaded.begin(), loaded.end(), [&](const auto& record) { return record->version == version; });
  const std::vector<CandidateStatus> candidates = active_->Decide(orders_).candidates;
  const bool in_folder =
      std::any_of(candidates.begin(), candidates.end(), [&](const CandidateStatus& candidate) {
        return candidate.version == version && candidate.state != VersionState::kPassedOver;
      });
  if (!is_loaded && !in_folder) {
    return absl::NotFoundError(absl::StrCat("model ", Escape(name_), " has no version ", version,
                                            ": it is neither loaded nor in the folder"));
  }
  RELIGHT_RETURN_IF_ERROR(pins_.Set(name_, version));
  orders_.pin = version;
  orders_.unloaded = false;
  return absl::OkStatus();
}

absl::Status ModelManager::BeginRollBack() {
  const std::shared_ptr<VersionRecord> current = active_->Current();
  if (current == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("model ", Escape(name_), " serves no version to go back from"));
  }
  // In the order in which they were loaded: going back twice is not going forth again.
  const std::vector<std::shared_ptr<VersionRecord>> records = active_->Records();
  const auto here = std::find(records.begin(), records.end(), current);
  if (here != records.end() && std::next(here) != records.end()) {
    const VersionRecord& before = **std::next(here);
    RELIGHT_RETURN_IF_ERROR(pins_.Set(name_, before.version));
    active_->MakeCurrent(before.generation, ++last_generation_);
    orders_.pin = before.version;
    return absl::OkStatus();
  }
  for (const CandidateStatus& candidate : active_->Decide(orders_).candidates) {
    const bool older = candidate.version.has_value() && *candidate.version < current->version;
    if (!older || candidate.state == VersionState::kPassedOver ||
        candidate.state == VersionState::kRefused) {
      continue;
    }
    RELIGHT_RETURN_IF_ERROR(pins_.Set(name_, *candidate.version));
    orders_.pin = candidate.version;
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat("model ", Escape(name_),
                                                    " has no version before ", current->version,
                                                    ": none is loaded and none is in the folder"));
}

void ModelManager::AnswerCommand() {
  const absl::Status outcome = OutcomeOf(*running_);
  if (active_ != nullptr) active_->EndForce();
  if (next_ != nullptr) next_->EndForce();
  UpdateStatus();
  ReloadResult result;
  result.status = *status();
  result.swapped = CurrentGeneration() != generation_before_;
  const std::shared_ptr<Command> command = std::move(running_);
  if (outcome.ok()) {
    command->Answer(std::move(result));
  } else {
    command->Answer(outcome);
  }
}

absl::Status ModelManager::OutcomeOf(const Command& command) {
  switch (command.kind()) {
    case Command::Kind::kReload:
      return OutcomeOfReload();
    case Command::Kind::kPin:
    case Command::Kind::kRollBack:
      return OutcomeOfPin(command);
    case Command::Kind::kUnpin:
    case Command::Kind::kUnload:
    case Command::Kind::kTakeIn:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

absl::Status ModelManager::OutcomeOfReload() const {
  if (const std::string why = WhyConfigWaits(); !why.empty()) {
    return absl::FailedPreconditionError(why);
  }
  if (CurrentGeneration() == 0) return absl::FailedPreconditionError(WhyNotServing());
  if (!orders_.pin.has_value() && !decision_.newest_problem.empty()) {
    return absl::FailedPreconditionError(decision_.newest_problem);
  }
  return absl::OkStatus();
}

absl::Status ModelManager::OutcomeOfPin(const Command& command) {
  const std::shared_ptr<VersionRecord> current = active_->Current();
  if (current != nullptr && current->version == orders_.pin) {
    Note(command.kind() == Command::Kind::kPin ? HistoryEvent::kPinned : HistoryEvent::kRolledBack);
    return absl::OkStatus();
  }
  absl::Status failed = absl::FailedPreconditionError(decision_.reason);
  orders_ = orders_before_;
  if (const absl::Status kept = pins_.Set(name_, orders_.pin); !kept.ok()) {
    const LogScope about({.model = name_});
    spdlog::error("model {}: {}", Escape(name_), std::string(kept.message()));
  }
  return failed;
}

void ModelManager::AnswerAll(const absl::Status& why) {
  if (running_ != nullptr) std::exchange(running_, nullptr)->Answer(why);
  for (const std::shared_ptr<Command>& command : commands_) command->Answer(why);
  commands_.clear();
}

void ModelManager::Note(HistoryEvent event, std::string reason) {
  HistoryEntry entry{.time = surroundings_.clock.Now(), .event = event};
  entry.reason = std::move(reason);
  if (active_ != nullptr) {
    if (const std::shared_ptr<VersionRecord> current = active_->Current(); current != nullptr) {
      entry.version = current->version;
      entry.generation = current->generation;
      entry.file = current->file;
      entry.weights_digest = current->digest.ToHex();
    }
  }
  journal_->Add(std::move(entry));
}

// --- what others see ---

std::uint64_t ModelManager::CurrentGeneration() const {
  if (active_ == nullptr) return 0;
  const std::shared_ptr<VersionRecord> current = active_->Current();
  return current == nullptr ? 0 : current->generation.load();
}

// Why a changed config is not in use; empty where there is none that waits.
std::string ModelManager::WhyConfigWaits() const {
  if (!config_error_.empty()) return config_error_;
  if (next_ == nullptr || active_ == nullptr) return "";
  std::string why = next_decision_.newest_problem;
  if (why.empty()) why = next_decision_.reason;
  if (why.empty()) why = next_->loading() ? "it is being loaded" : "no checkpoint yet";
  return absl::StrCat("the changed config is not in use yet, the one before stays: ", why);
}

std::string ModelManager::WhyNotServing() const {
  if (active_ == nullptr) return config_error_;
  if (orders_.unloaded) return "unloaded by an admin; reload it to serve again";
  if (!decision_.newest_problem.empty()) return decision_.newest_problem;
  if (!decision_.reason.empty()) return decision_.reason;
  return absl::StrCat("no checkpoint yet in ", Escape(active_->config().checkpoints.folder, 1024));
}

std::shared_ptr<const ModelStatus> ModelManager::MakeStatus() const {
  const std::string config_waits = WhyConfigWaits();
  auto status = std::make_shared<ModelStatus>();
  status->name = name_;
  status->pinned_version = orders_.pin;
  status->last_good_load = journal_->last_good_load();
  status->last_error = config_waits.empty() ? decision_.newest_problem : config_waits;
  status->generation = CurrentGeneration();
  status->candidates = decision_.candidates;
  status->version_rule = decision_.rule;
  if (active_ != nullptr) {
    status->device = active_->graph().device();
    for (const std::shared_ptr<VersionRecord>& record : active_->Records()) {
      const Aftermath aftermath = record->aftermath();
      const bool serves = record->generation == status->generation;
      status->loaded.push_back(
          {record->version, record->generation, record->digest.ToHex(), record->file,
           aftermath.file_sha256, serves ? VersionState::kServing : VersionState::kLoaded,
           record->loaded_at, aftermath.training_state, aftermath.training_state_reason});
    }
  }
  const bool tried = std::any_of(status->candidates.begin(), status->candidates.end(),
                                 [](const CandidateStatus& candidate) {
                                   return candidate.state == VersionState::kRefused ||
                                          candidate.state == VersionState::kRetrying;
                                 });
  if (status->generation != 0) {
    status->state = ModelState::kServing;
    status->reason = config_waits.empty() ? decision_.reason : config_waits;
  } else {
    status->state = orders_.unloaded              ? ModelState::kUnloaded
                    : tried || active_ == nullptr ? ModelState::kFailed
                                                  : ModelState::kWaiting;
    status->reason = WhyNotServing();
  }
  return status;
}

void ModelManager::UpdateStatus() {
  std::shared_ptr<const ModelStatus> status = MakeStatus();
  std::shared_ptr<const ModelInfo> info;
  if (active_ != nullptr) {
    const config::ModelConfig& config = active_->config();
    auto made = std::make_shared<ModelInfo>();
    made->name = name_;
    made->inputs = active_->graph().inputs();
    made->outputs = active_->graph().outputs();
    made->batching = config.batching;
    made->platform = std::holds_alternative<config::TorchScriptGraph>(config.graph)
                         ? "relight_torchscript"
                         : "relight_network";
    made->on_gpu = absl::StartsWith(status->device, "cuda");
    made->loaded_versions = active_->path()->slot().LoadedVersions();
    info = std::move(made);
  }
  MutexLock lock(mutex_);
  info_ = std::move(info);
  if (status_ != nullptr && *status_ == *status) return;
  status_ = std::move(status);
  changed_ = true;
}

std::vector<std::string> ModelManager::Folders() const {
  std::vector<std::string> folders = {folder_};
  for (const Deployment* deployment : {next_.get(), active_.get()}) {
    if (deployment != nullptr) folders.push_back(deployment->config().checkpoints.folder);
  }
  return folders;
}

std::string ModelManager::NoGraphText() const {
  if (config_error_.empty()) {
    return absl::StrCat("model ", Escape(name_), " has just been found and is being set up");
  }
  return absl::StrCat("model ", Escape(name_), " has no usable config: ", config_error_);
}

Front ModelManager::front() const {
  Front front;
  if (active_ != nullptr) {
    front.path = active_->path();
    front.info = info_;
  } else {
    front.unavailable = absl::UnavailableError(NoGraphText());
  }
  return front;
}

std::shared_ptr<const ModelStatus> ModelManager::status() const {
  MutexLock lock(mutex_);
  return status_;
}

absl::StatusOr<ModelManager::SnapshotSource> ModelManager::FindForSnapshot(
    std::optional<std::int64_t> version) const {
  MutexLock lock(mutex_);
  SnapshotSource source;
  if (active_ != nullptr) {
    source.config = active_->config();
    source.parameters = active_->graph().parameters();
    const std::shared_ptr<VersionRecord> current = active_->Current();
    if (!version.has_value()) {
      source.record = current;
    } else {
      for (const std::shared_ptr<VersionRecord>& record : active_->Records()) {
        const bool fits = record->version == *version;
        if (fits && (source.record == nullptr || record == current)) source.record = record;
      }
    }
  }
  if (source.record != nullptr) return source;
  if (version.has_value()) {
    return absl::NotFoundError(absl::StrCat("model ", Escape(name_), " has no version ", *version,
                                            " in memory; pin it first"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("model ", Escape(name_), " serves no version to take a snapshot of"));
}

absl::StatusOr<std::vector<ModelManager::PushTarget>> ModelManager::PushTargets() const {
  std::vector<PushTarget> targets;
  MutexLock lock(mutex_);
  for (const Deployment* deployment : {next_.get(), active_.get()}) {
    if (deployment == nullptr) continue;
    targets.push_back({deployment->config(), deployment->graph().parameters()});
  }
  if (!targets.empty()) return targets;
  return absl::FailedPreconditionError(
      absl::StrCat("model ", Escape(name_), " has no usable config to take checkpoints: ",
                   status_->reason.empty() ? "it is being set up" : status_->reason));
}

}  // namespace relight::serving
