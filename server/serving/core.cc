#include "server/serving/core.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/escape.h"
#include "base/log_fields.h"
#include "base/status_macros.h"
#include "server/serving/failure.h"
#include "server/serving/leftovers.h"
#include "server/serving/snapshot.h"

namespace relight::serving {
namespace {

// How long an admin call waits for a model to come to rest.
constexpr absl::Duration kAdminWait = absl::Minutes(10);
// How often it is asked whether somebody still waits.
constexpr absl::Duration kAdminSlice = absl::Milliseconds(200);
// Without threads nothing changes by waiting: a model that is not at rest by then never is.
constexpr int kRoundsWithoutThreads = 16;
// What remains of a busy core to a thread of such a niceness: a thirtieth, and a seventieth. So
// they yield to requests, and still end where those never pause.
constexpr int kLoaderNiceness = 15;
constexpr int kAfterSwapNiceness = 19;
// What is due at once is not asked for in a loop.
constexpr absl::Duration kShortestRound = absl::Milliseconds(2);

absl::Status UnknownModel(std::string_view model) {
  return absl::NotFoundError(absl::StrCat("unknown model ", Escape(model)));
}

std::string SpoolFolder(const std::string& state_dir) {
  if (!state_dir.empty()) return state_dir;
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  return error ? "/tmp" : folder.string();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Core>> Core::Start(const CoreOptions& options,
                                                  model::GraphFactory& factory, const Clock& clock,
                                                  Threads threads) {
  RemoveLeftovers(options.snapshot_dir, storage::Reach::kTree);
  RemoveLeftovers(options.state_dir, storage::Reach::kTree);
  // The folder for everybody's temporary files may be large, and ours lie at its top.
  if (options.state_dir.empty()) RemoveLeftovers(SpoolFolder(""), storage::Reach::kFolder);
  RELIGHT_ASSIGN_OR_RETURN(PinStore pins, PinStore::Open(options.state_dir));
  std::unique_ptr<Core> core(new Core(options, factory, clock, std::move(pins), threads));
  RELIGHT_RETURN_IF_ERROR(core->StartModels());
  if (threads == Threads::kOwn) core->StartThreads();
  return core;
}

Core::Core(const CoreOptions& options, model::GraphFactory& factory, const Clock& clock,
           PinStore pins, Threads threads)
    : options_(options),
      clock_(clock),
      watcher_(storage::MakeFolderWatcher()),
      surroundings_{factory,
                    clock,
                    MakeComputePool(options.compute_threads),
                    [](std::function<void()> job) { job(); },
                    [](std::function<void()> job) { job(); },
                    storage::SerialFor,
                    [this] { watcher_->Wake(); },
                    SpoolFolder(options.state_dir),
                    options.snapshot_dir},
      pins_(std::move(pins)) {
  if (threads == Threads::kNone) return;
  loaders_ = std::make_unique<WorkerPool>("loader", options.load_threads, kLoaderNiceness);
  after_swap_ = std::make_unique<WorkerPool>("after-swap", 1, kAfterSwapNiceness);
  // The pools themselves: what is under way while they are destroyed may still hand in more.
  surroundings_.load = [pool = loaders_.get()](std::function<void()> job) {
    pool->Submit(std::move(job));
  };
  surroundings_.after_swap = [pool = after_swap_.get()](std::function<void()> job) {
    pool->Submit(std::move(job));
  };
  surroundings_.parallel_for = loaders_->parallel_for();
}

Core::~Core() {
  stop_manager_ = true;
  surroundings_.stopping = true;
  watcher_->Wake();
  if (manager_.joinable()) manager_.join();
  // Loads end early, and nothing starts a new one.
  after_swap_.reset();
  loaders_.reset();
  {
    MutexLock lock(mutex_);
    for (const auto& [model, command] : commands_) {
      command->Answer(absl::UnavailableError("the server stops"));
    }
    entries_ = std::make_shared<const Entries>();
  }
  models_.clear();
  removed_.clear();
}

absl::Status Core::StartModels() {
  RELIGHT_ASSIGN_OR_RETURN(const ModelListing listing, ListModels(options_.model_repository));
  std::vector<std::string> errors;
  for (const std::string& name : listing.models) {
    auto manager = std::make_shared<ModelManager>(
        name, absl::StrCat(options_.model_repository, "/", name), surroundings_, pins_);
    if (const absl::Status status = manager->Start(); !status.ok()) {
      // Every line on its own says which model it is about.
      for (const absl::string_view line : absl::StrSplit(status.message(), '\n')) {
        errors.push_back(absl::StrCat("model ", Escape(name), ": ", line));
      }
    }
    models_.emplace(name, std::move(manager));
  }
  if (!errors.empty()) return absl::InvalidArgumentError(absl::StrJoin(errors, "\n"));
  for (const std::string& name : listing.unseen) {
    spdlog::warn("model repository {}: {} cannot be looked at; check its permissions",
                 Escape(options_.model_repository, 1024), Escape(name));
  }
  if (listing.models.empty()) {
    spdlog::warn("model repository {} holds no model yet: a folder with a model.textproto is one",
                 Escape(options_.model_repository, 1024));
  }
  PublishEntries();
  return absl::OkStatus();
}

void Core::StartThreads() {
  RunOnce();
  manager_ = std::thread([this] { RunManager(); });
}

void Core::RunManager() {
  ::pthread_setname_np(::pthread_self(), "manager");
  while (!stop_manager_) {
    const absl::Time back = RunOnce();
    const absl::Duration wait = std::clamp(back - clock_.Now(), kShortestRound,
                                           std::max(options_.poll_interval, kShortestRound));
    watcher_->Wait(wait);
  }
}

absl::Time Core::RunOnce() {
  std::set<std::string> changed;
  HandOutCommands();
  ScanRepository(changed);
  absl::Time back = absl::InfiniteFuture();
  bool all_served = true;
  for (const auto& [name, manager] : models_) {
    if (manager->Step()) changed.insert(name);
    back = std::min(back, manager->wake());
    all_served = all_served && manager->has_served();
  }
  PublishEntries();
  std::erase_if(removed_, [](const auto& manager) { return manager->TryRetire(); });
  WatchFolders();
  if (all_served && !ready_.exchange(true)) changed.insert("");
  subscriptions_.Notify({changed.begin(), changed.end()});
  return back;
}

void Core::ScanRepository(std::set<std::string>& changed) {
  const absl::StatusOr<ModelListing> listing = ListModels(options_.model_repository);
  const std::string error(listing.status().message());
  if (error != repository_error_ && !error.empty()) spdlog::warn("{}", error);
  repository_error_ = error;
  if (!listing.ok()) return;
  for (const std::string& name : listing->models) {
    if (!models_.contains(name)) AddModel(name, changed);
  }
  std::vector<std::string> known;
  for (const auto& [name, manager] : models_) known.push_back(name);
  for (const std::string& name : removals_.Count(*listing, known, clock_.Now())) {
    const LogScope about({.model = name});
    spdlog::info("model {}: its folder or config was removed; it is no longer served",
                 Escape(name));
    last_generations_[name] = models_.at(name)->last_generation();
    removed_.push_back(std::move(models_.at(name)));
    models_.erase(name);
    changed.insert(name);
  }
}

void Core::AddModel(const std::string& name, std::set<std::string>& changed) {
  const LogScope about({.model = name});
  spdlog::info("model {}: found", Escape(name));
  const auto before = last_generations_.find(name);
  models_.emplace(name, std::make_shared<ModelManager>(
                            name, absl::StrCat(options_.model_repository, "/", name), surroundings_,
                            pins_, before == last_generations_.end() ? 0 : before->second));
  changed.insert(name);
}

void Core::PublishEntries() {
  auto entries = std::make_shared<Entries>();
  for (const auto& [name, manager] : models_) (*entries)[name] = {manager, manager->front()};
  {
    MutexLock lock(mutex_);
    entries_ = entries;
  }
  // After they can be seen: a drain that began before has missed what is new among them.
  if (surroundings_.draining) StopAdmitting(*entries);
}

void Core::StopAdmitting(const Entries& entries) {
  for (const auto& [name, entry] : entries) {
    if (entry.front.path != nullptr) {
      entry.front.path->StopAdmitting(Draining());
    }
  }
}

void Core::WatchFolders() {
  std::vector<std::string> folders = {options_.model_repository};
  for (const auto& [name, manager] : models_) {
    for (std::string& folder : manager->Folders()) folders.push_back(std::move(folder));
  }
  watcher_->Watch(folders);
}

std::shared_ptr<const Core::Entries> Core::entries() const {
  MutexLock lock(mutex_);
  return entries_;
}

absl::StatusOr<Core::Entry> Core::Find(std::string_view model) const {
  const std::shared_ptr<const Entries> all = entries();
  const auto found = all->find(model);
  if (found == all->end()) return UnknownModel(model);
  return found->second;
}

// --- the request path ---

void Core::Infer(std::string_view model, InferRequest request, InferDone done) {
  absl::Status refused;
  std::shared_ptr<RequestPath> path;
  bool known = true;
  {
    MutexLock lock(mutex_);
    const auto found = entries_->find(model);
    if (found == entries_->end()) {
      known = false;
      refused = UnknownModel(model);
    } else if (found->second.front.path == nullptr) {
      refused = found->second.front.unavailable;
    } else {
      path = found->second.front.path;
    }
  }
  if (path == nullptr) {
    refusals_.Add(known ? model : "", ReasonOf(refused));
    return done(std::move(refused));
  }
  path->Infer(std::move(request), std::move(done));
}

absl::StatusOr<std::shared_ptr<const ModelInfo>> Core::GetModelInfo(std::string_view model) const {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(model));
  if (entry.front.info == nullptr) return entry.front.unavailable;
  return entry.front.info;
}

absl::StatusOr<bool> Core::IsModelReady(std::string_view model,
                                        std::optional<std::int64_t> version) const {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(model));
  return entry.front.path != nullptr && entry.front.path->slot().Find(version) != nullptr;
}

std::vector<std::string> Core::ModelNames() const {
  const std::shared_ptr<const Entries> models = entries();
  std::vector<std::string> names;
  for (const auto& [name, entry] : *models) names.push_back(name);
  return names;
}

absl::StatusOr<std::vector<std::pair<std::string, VersionStatistics>>> Core::GetStatistics(
    std::string_view model, std::optional<std::int64_t> version) const {
  const std::shared_ptr<const Entries> all = entries();
  if (!model.empty() && !all->contains(model)) return UnknownModel(model);
  std::vector<std::pair<std::string, VersionStatistics>> rows;
  for (const auto& [name, entry] : *all) {
    if ((!model.empty() && name != model) || entry.front.path == nullptr) continue;
    for (VersionStatistics& row : entry.front.path->VersionRows()) {
      if (!version.has_value() || row.version == *version) rows.emplace_back(name, std::move(row));
    }
  }
  if (version.has_value() && rows.empty()) {
    return absl::NotFoundError(
        absl::StrCat("version ", *version, " of model ", Escape(model), " is not loaded"));
  }
  return rows;
}

std::vector<ModelStatistics> Core::GetModelStatistics() const {
  const std::shared_ptr<const Entries> models = entries();
  std::vector<ModelStatistics> all;
  for (const auto& [name, entry] : *models) {
    ModelStatistics statistics;
    statistics.model = name;
    if (entry.front.path != nullptr) entry.front.path->FillStatistics(statistics);
    entry.manager->journal().Fill(clock_.Now(), statistics);
    const std::shared_ptr<const ModelStatus> status = entry.manager->status();
    for (const LoadedVersion& loaded : status->loaded) {
      if (loaded.state != VersionState::kServing) continue;
      statistics.served_version = loaded.version;
      statistics.generation = loaded.generation;
      statistics.weights_digest = loaded.weights_digest;
    }
    refusals_.AddTo(statistics);
    all.push_back(std::move(statistics));
  }
  ModelStatistics nameless;
  refusals_.AddTo(nameless);
  if (!nameless.requests_failed.empty()) all.push_back(std::move(nameless));
  return all;
}

void Core::CountInvalidRequest(std::string_view model) {
  refusals_.Add(entries()->contains(model) ? model : "", FailureReason::kInvalid);
}

std::uint64_t Core::MaxRequestBytes() const {
  const std::shared_ptr<const Entries> models = entries();
  std::uint64_t most = 0;
  for (const auto& [name, entry] : *models) {
    if (entry.front.path != nullptr) most = std::max(most, entry.front.path->MaxRequestBytes());
  }
  return most;
}

// --- the admin path ---

std::vector<ModelStatus> Core::GetStatus() const {
  const std::shared_ptr<const Entries> models = entries();
  std::vector<ModelStatus> all;
  for (const auto& [name, entry] : *models) all.push_back(*entry.manager->status());
  return all;
}

absl::StatusOr<ModelStatus> Core::GetStatus(std::string_view model) const {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(model));
  return *entry.manager->status();
}

absl::StatusOr<std::vector<HistoryEntry>> Core::GetHistory(std::string_view model,
                                                           std::size_t limit) const {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(model));
  return entry.manager->journal().Newest(limit);
}

void Core::HandOutCommands() {
  std::vector<std::pair<std::string, std::shared_ptr<Command>>> commands;
  {
    MutexLock lock(mutex_);
    commands.swap(commands_);
  }
  for (auto& [model, command] : commands) {
    const auto found = models_.find(model);
    if (found == models_.end()) {
      command->Answer(UnknownModel(model));
    } else {
      found->second->Submit(std::move(command));
    }
  }
}

absl::StatusOr<ReloadResult> Core::Execute(std::string_view model, Command::Kind kind,
                                           std::int64_t version, std::string file,
                                           const std::function<bool()>& wanted) {
  RELIGHT_RETURN_IF_ERROR(Find(model).status());
  const auto command = std::make_shared<Command>(kind, version, std::move(file));
  {
    MutexLock lock(mutex_);
    if (surroundings_.draining) return Draining();
    commands_.emplace_back(model, command);
    awaited_.insert(command);
  }
  const auto forget = absl::MakeCleanup([&] {
    MutexLock lock(mutex_);
    awaited_.erase(command);
  });
  if (manager_.joinable()) {
    watcher_->Wake();
  } else {
    for (int i = 0; i < kRoundsWithoutThreads && !command->Await(absl::ZeroDuration()); ++i) {
      RunOnce();
    }
  }
  absl::Duration left = manager_.joinable() ? kAdminWait : absl::ZeroDuration();
  for (; !command->Await(std::min(left, kAdminSlice)); left -= kAdminSlice) {
    if (wanted && !wanted()) return absl::CancelledError("nobody waits for the outcome any more");
    if (left > kAdminSlice) continue;
    return absl::DeadlineExceededError(absl::StrCat(
        "model ", Escape(model), " is still busy; what was asked for goes on, watch its status"));
  }
  return command->answer();
}

absl::StatusOr<ModelStatus> Core::ExecuteForStatus(std::string_view model, Command::Kind kind,
                                                   std::int64_t version) {
  RELIGHT_ASSIGN_OR_RETURN(ReloadResult result, Execute(model, kind, version));
  return std::move(result.status);
}

absl::StatusOr<ReloadResult> Core::Reload(std::string_view model) {
  return Execute(model, Command::Kind::kReload);
}
absl::StatusOr<ModelStatus> Core::Pin(std::string_view model, std::int64_t version) {
  return ExecuteForStatus(model, Command::Kind::kPin, version);
}
absl::StatusOr<ModelStatus> Core::Unpin(std::string_view model) {
  return ExecuteForStatus(model, Command::Kind::kUnpin);
}
absl::StatusOr<ModelStatus> Core::RollBack(std::string_view model) {
  return ExecuteForStatus(model, Command::Kind::kRollBack);
}
absl::StatusOr<ModelStatus> Core::Unload(std::string_view model) {
  return ExecuteForStatus(model, Command::Kind::kUnload);
}

absl::StatusOr<SnapshotResult> Core::Snapshot(const SnapshotRequest& request,
                                              const SnapshotProgress& progress) {
  RELIGHT_ASSIGN_OR_RETURN(const Entry entry, Find(request.model));
  if (options_.snapshot_dir.empty()) {
    return absl::FailedPreconditionError(
        "this server takes no snapshots: start it with --snapshot-dir");
  }
  RELIGHT_ASSIGN_OR_RETURN(const ModelManager::SnapshotSource source,
                           entry.manager->FindForSnapshot(request.version));
  RELIGHT_ASSIGN_OR_RETURN(SnapshotResult result,
                           WriteSnapshot(request, source, options_.snapshot_dir, progress));
  entry.manager->journal().Add({.time = clock_.Now(),
                                .event = HistoryEvent::kSnapshot,
                                .version = result.version,
                                .generation = result.generation,
                                .file = result.path,
                                .file_sha256 = result.file_sha256,
                                .weights_digest = result.weights_digest});
  const LogScope about({.model = request.model,
                        .version = result.version,
                        .generation = result.generation,
                        .event = Name(HistoryEvent::kSnapshot)});
  spdlog::info("model {}: wrote version {}, generation {} to {}", Escape(request.model),
               result.version, result.generation, Escape(result.path, 1024));
  return result;
}

std::unique_ptr<ServerCore::Subscription> Core::Subscribe(
    std::function<void(const std::string& model)> on_change) {
  return subscriptions_.Add(std::move(on_change));
}

bool Core::Drain(absl::Time deadline) {
  surroundings_.draining = true;
  std::set<std::shared_ptr<Command>> awaited;
  {
    MutexLock lock(mutex_);
    awaited = awaited_;
  }
  // Loads end early from now on, and nobody is to wait for what comes of them.
  for (const std::shared_ptr<Command>& command : awaited) {
    command->Answer(Draining());
  }
  const std::shared_ptr<const Entries> all = entries();
  StopAdmitting(*all);
  bool idle = true;
  for (const auto& [name, entry] : *all) {
    if (entry.front.path != nullptr) idle = entry.front.path->WaitIdle(deadline) && idle;
  }
  return idle;
}

absl::StatusOr<std::unique_ptr<ServerCore>> StartServerCore(const CoreOptions& options,
                                                            model::GraphFactory& factory,
                                                            const Clock& clock) {
  return Core::Start(options, factory, clock, Core::Threads::kOwn);
}

}  // namespace relight::serving
