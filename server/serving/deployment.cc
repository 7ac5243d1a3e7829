#include "server/serving/deployment.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/escape.h"
#include "base/log_fields.h"
#include "base/status_macros.h"
#include "server/serving/aftercare.h"
#include "server/serving/failure.h"
#include "server/serving/give_way.h"
#include "server/serving/leftovers.h"
#include "storage/folder.h"

namespace relight::serving {
namespace {

// How long a load waits for the last requests, or a snapshot, of the version that makes way.
constexpr absl::Duration kWaitForBlock = absl::Seconds(30);
// How soon such a wait notices that it is in vain.
constexpr absl::Duration kWaitStep = absl::Milliseconds(200);
// Keys in one message.
constexpr std::size_t kMostNamed = 8;

PolicySettings SettingsOf(const config::ModelConfig& config) {
  PolicySettings settings;
  settings.settle_time = config.checkpoints.settle_time;
  settings.torn_timeout = config.checkpoints.torn_timeout;
  return settings;
}

// One line, however many things were wrong.
std::string OneLine(std::string_view text) {
  return absl::StrReplaceAll({text.data(), text.size()}, {{"\n", "; "}});
}

std::string PathOf(const config::ModelConfig& config, const std::string& file) {
  return absl::StrCat(config.checkpoints.folder, "/", file);
}

// Nobody asked for a snapshot to be served as the newest checkpoint.
absl::Status CheckApart(const std::string& watched, const std::string& snapshots) {
  if (snapshots.empty()) return absl::OkStatus();
  const auto resolve = [](const std::string& folder) {
    std::error_code error;
    std::filesystem::path path = std::filesystem::weakly_canonical(folder, error);
    if (error) path = std::filesystem::path(folder).lexically_normal();
    // With one slash at the end, so that a name that begins like another is no prefix of it.
    return (path / "").string();
  };
  const std::string a = resolve(watched);
  const std::string b = resolve(snapshots);
  if (!absl::StartsWith(a, b) && !absl::StartsWith(b, a)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "the watched folder ", Escape(watched, 1024), " and --snapshot-dir ", Escape(snapshots, 1024),
      " lie within each other, so that snapshots would be served as checkpoints: choose another "
      "folder for one of them"));
}

Signature SignatureOf(const config::ModelConfig& config, const model::Graph& graph) {
  return {.model = config.name,
          .inputs = graph.inputs(),
          .outputs = graph.outputs(),
          .batching = config.batching,
          .batches_at_once = graph.forwards_at_once()};
}

// As the history calls it; empty where there is no news.
std::string_view EventName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kUnchanged:
      return Name(HistoryEvent::kUnchanged);
    case Verdict::kRefused:
      return Name(HistoryEvent::kRefused);
    case Verdict::kTransient:
      return Name(HistoryEvent::kRetrying);
    default:
      return {};
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Deployment>> Deployment::Create(config::ModelConfig config,
                                                               Surroundings& surroundings,
                                                               std::shared_ptr<Journal> journal) {
  RELIGHT_RETURN_IF_ERROR(CheckApart(config.checkpoints.folder, surroundings.snapshot_folder));
  RELIGHT_ASSIGN_OR_RETURN(std::unique_ptr<model::Graph> graph,
                           surroundings.factory.Create(config));
  Signature signature = SignatureOf(config, *graph);
  RELIGHT_ASSIGN_OR_RETURN(GoldenRequests golden_requests,
                           GoldenRequests::Read(config.golden_requests, signature));
  // Of pushes. They lie at its top, and what else is below may be the trainer's, and much.
  RemoveLeftovers(config.checkpoints.folder, storage::Reach::kFolder);
  return std::unique_ptr<Deployment>(
      new Deployment(std::move(config), std::move(graph), std::move(signature),
                     std::move(golden_requests), surroundings, std::move(journal)));
}

Deployment::Deployment(config::ModelConfig config, std::unique_ptr<model::Graph> graph,
                       Signature signature, GoldenRequests golden_requests,
                       Surroundings& surroundings, std::shared_ptr<Journal> journal)
    : config_(std::move(config)),
      settings_(SettingsOf(config_)),
      graph_(std::move(graph)),
      golden_requests_(std::move(golden_requests)),
      surroundings_(surroundings),
      journal_(std::move(journal)),
      arena_(surroundings.factory, graph_->device(), config_.arenas) {
  path_ = MakeRequestPath(std::move(signature), surroundings.compute);
  if (surroundings_.draining) path_->StopAdmitting(Draining());
}

// Whoever destroys it has seen TryRetire succeed, or has ended the threads that use it.
Deployment::~Deployment() {
  CancelLoad();
  for (const std::shared_ptr<VersionRecord>& record : Records()) {
    Slot::Handle handle = Unpublish(record, "");
    while (!Slot::DestroyWhenUnused(handle, kWaitStep)) {
    }
  }
}

void Deployment::Scan() {
  absl::StatusOr<std::vector<storage::FolderEntry>> listing =
      storage::ScanFolder(config_.checkpoints.folder);
  if (listing.ok() != listing_.ok()) {
    const LogScope about({.model = config_.name});
    if (listing.ok()) {
      spdlog::info("model {}: the folder of checkpoints can be listed again", Escape(config_.name));
    } else {
      spdlog::warn("model {}: {}", Escape(config_.name),
                   OneLine(std::string(listing.status().message())));
    }
  }
  listing_ = listing.status();
  if (listing.ok()) Observe(*listing, surroundings_.clock.Now(), settings_, memory_);
}

Decision Deployment::Decide(const Orders& orders, std::optional<LoadedRow> serves_elsewhere) const {
  std::optional<std::string> under_way;
  if (load_ != nullptr) under_way = load_->file;
  const PolicyInput input{.memory = memory_,
                          .rule = config_.version,
                          .loaded = LoadedRows(),
                          .serves_elsewhere = std::move(serves_elsewhere),
                          .unlisted = !listing_.ok(),
                          .pin = orders.pin,
                          .unloaded = orders.unloaded,
                          .loading = under_way,
                          .now = surroundings_.clock.Now(),
                          .settings = settings_};
  Decision decision = serving::Decide(input);
  if (!listing_.ok()) decision.reason = std::string(listing_.message());
  return decision;
}

bool Deployment::Act(const Decision& decision, std::uint64_t next_generation) {
  switch (decision.action) {
    case Decision::Action::kNothing:
      break;
    case Decision::Action::kLoad:
      StartLoad(decision, next_generation);
      break;
    case Decision::Action::kMakeCurrent:
      return MakeCurrent(decision.generation, next_generation);
    case Decision::Action::kUnloadAll:
      UnloadAll();
      break;
  }
  return false;
}

void Deployment::StartLoad(const Decision& decision, std::uint64_t generation) {
  auto load = std::make_shared<LoadUnderWay>();
  load->file = decision.file;
  load->stem = decision.stem;
  load->listed = memory_.files.at(decision.file).identity;
  load->order.path = PathOf(config_, decision.file);
  load->order.version = decision.version;
  load->order.generation = generation;
  load->order.settled = decision.settled;
  load->order.listed = load->listed;
  // An overwritten file keeps its version, and the version its counts.
  const Slot::Handle same_version = path_->slot().Find(decision.version);
  load->order.counters = same_version == nullptr ? MakeVersionCounters() : same_version->counters;
  if (const std::shared_ptr<VersionRecord> current = Current(); current != nullptr) {
    load->order.graph_is_warm = true;
    if (decision.unchanged_will_do) load->order.unchanged = current->digest;
  }
  load_ = load;
  // Once the result is there this deployment may be destroyed; what is woken stays.
  surroundings_.load([this, load, &surroundings = surroundings_] {
    RunLoad(load);
    surroundings.wake();
  });
}

void Deployment::RunLoad(const std::shared_ptr<LoadUnderWay>& load) {
  LoadTools tools{config_,
                  *graph_,
                  [this, &load](std::size_t bytes) { return MakeRoom(*load, bytes); },
                  [this](const ServedVersion& version, std::int64_t batch_size) {
                    GiveWayToRequests();
                    return path_->WarmUp(version, batch_size, config_.warm_up.free_dim);
                  },
                  {},
                  {}};
  tools.hooks.between_chunks = [this, load]() -> absl::Status {
    GiveWayToRequests();
    return InVain(*load) ? absl::CancelledError("no longer wanted") : absl::OkStatus();
  };
  if (!golden_requests_.empty()) {
    tools.accept = [this, between = tools.hooks.between_chunks](const ServedVersion& version) {
      const Slot::Handle serving = path_->slot().Find(std::nullopt);
      return golden_requests_.Check(*version.model,
                                    serving == nullptr ? nullptr : serving->model.get(), between);
    };
  }
  if (config_.arenas == 1 && Current() != nullptr) {
    tools.scratch = [this](std::size_t bytes) {
      return surroundings_.factory.AllocateHost("cpu", bytes);
    };
  }
  tools.hooks.parallel_for = surroundings_.parallel_for;
  LoadResult result = LoadCheckpoint(load->order, tools);
  MutexLock lock(load->mutex);
  load->result = std::move(result);
}

// Runs on a loader's thread, and takes the oldest version that does not serve out of memory.
absl::StatusOr<std::shared_ptr<Arena::Lease>> Deployment::MakeRoom(LoadUnderWay& load,
                                                                   std::size_t size_bytes) {
  const auto give_up = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(kWaitForBlock);
  const auto in_vain = [&] { return InVain(load) || std::chrono::steady_clock::now() > give_up; };
  while (true) {
    std::shared_ptr<VersionRecord> victim;
    {
      MutexLock lock(mutex_);
      if (records_.size() < static_cast<std::size_t>(config_.arenas)) break;
      const auto found = std::find_if(records_.begin(), records_.end(),
                                      [this](const auto& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(
                                          mutex_) { return record->generation != current_; });
      victim = found == records_.end() ? records_.front() : *found;
    }
    if (config_.arenas == 1) Pause();
    Slot::Handle handle = Unpublish(victim, "made way for the next");
    const Aftermath left = victim->aftermath();
    if (left.spool != nullptr) load.remains.push_back(left.spool);
    if (left.source != nullptr) load.remains.push_back(left.source);
    victim.reset();
    while (!Slot::DestroyWhenUnused(handle, kWaitStep)) {
      if (in_vain()) {
        DestroyOnLoader(std::move(handle));
        return absl::UnavailableError(
            "the version that was to make way is still answering a request");
      }
    }
  }
  while (true) {
    absl::StatusOr<std::shared_ptr<Arena::Lease>> lease = arena_.Acquire(size_bytes, kWaitStep);
    if (!absl::IsUnavailable(lease.status()) || in_vain()) return lease;
  }
}

void Deployment::Pause() {
  paused_ = true;
  path_->StopAdmitting(absl::UnavailableError(absl::StrCat(
      "model ", Escape(config_.name),
      " is paused while its only block of weights is replaced (arenas: 1); try again")));
  path_->WaitIdle(absl::Now() + kWaitForBlock);
}

void Deployment::Resume() {
  if (!paused_.exchange(false) || surroundings_.draining) return;
  path_->ResumeAdmitting();
  // A drain that began in between had stopped it before.
  if (surroundings_.draining) {
    path_->StopAdmitting(Draining());
  }
}

void Deployment::GiveWayToRequests() const {
  if (!paused_) GiveWay(*surroundings_.compute);
}

bool Deployment::InVain(const LoadUnderWay& load) const {
  return load.cancelled || surroundings_.draining || surroundings_.stopping;
}

void Deployment::CancelLoad() {
  if (load_ != nullptr) load_->cancelled = true;
}

std::uint64_t Deployment::Collect() {
  if (load_ == nullptr) return 0;
  std::optional<LoadResult> result;
  {
    MutexLock lock(load_->mutex);
    result = std::exchange(load_->result, std::nullopt);
  }
  if (!result.has_value()) return 0;
  const std::shared_ptr<LoadUnderWay> load = std::exchange(load_, nullptr);
  CloseRemains(*load);
  std::uint64_t published = 0;
  if (!InVain(*load)) {
    if (result->verdict == Verdict::kServed) {
      published = Publish(*load, *std::move(result));
    } else {
      Remember(*load, *result);
    }
  }
  Resume();
  return published;
}

// The last to close a file that has no name any more has the kernel free its pages: a second of
// processor time for gigabytes, which the load did not have. What the new version sets aside itself
// comes after it.
void Deployment::CloseRemains(LoadUnderWay& load) {
  if (load.remains.empty()) return;
  surroundings_.after_swap([remains = std::move(load.remains)]() mutable { remains.clear(); });
}

std::uint64_t Deployment::Publish(const LoadUnderWay& load, LoadResult result) {
  const auto start = std::chrono::steady_clock::now();
  const absl::Time now = surroundings_.clock.Now();
  LoadedCheckpoint& loaded = *result.loaded;
  const std::string partial_fit = PartialFit(loaded);
  auto record = std::make_shared<VersionRecord>();
  record->version = load.order.version;
  record->generation = load.order.generation;
  record->file = load.file;
  record->stem = load.stem;
  record->identity = *result.identity;
  record->format = loaded.checkpoint->summary().tensors_format();
  record->loaded_at = now;
  record->tree = loaded.checkpoint->shared_tree();
  record->storages = loaded.checkpoint->storages();
  record->state_dict = std::move(loaded.state_dict);
  record->plan = std::move(loaded.plan);
  record->digest = loaded.digest;
  record->lease = std::move(loaded.lease);
  {
    MutexLock lock(mutex_);
    records_.push_back(record);
    current_ = record->generation;
  }
  const std::string digest = *loaded.served->weights_digest;
  path_->slot().Publish(std::move(loaded.served));
  result.phases.emplace_back("publish", absl::FromChrono(std::chrono::steady_clock::now() - start));

  Record({load.file, *result.identity, Verdict::kServed, "", record->generation}, now, settings_,
         memory_);
  HistoryEntry entry{.time = now,
                     .event = HistoryEvent::kServed,
                     .version = record->version,
                     .generation = load.order.generation,
                     .file = load.file,
                     .weights_digest = digest,
                     .reason = partial_fit,
                     .phases = result.phases};
  journal_->Add(std::move(entry));
  journal_->CountReload("served");
  for (const auto& [phase, duration] : result.phases) journal_->CountPhase(phase, duration);
  journal_->SetLastGoodLoad(now);
  absl::Duration total;
  for (const auto& [phase, duration] : result.phases) total += duration;
  const LogScope about({.model = config_.name,
                        .version = record->version,
                        .generation = load.order.generation,
                        .event = Name(HistoryEvent::kServed)});
  spdlog::info("model {}: serves version {}, generation {}, from {} (weights {}) after {}",
               Escape(config_.name), record->version, load.order.generation, Escape(load.file),
               digest, absl::FormatDuration(total));
  if (std::exchange(partial_fit_, partial_fit) != partial_fit && !partial_fit.empty()) {
    spdlog::warn("model {}: {} fits in part: {}", Escape(config_.name), Escape(load.file),
                 partial_fit);
  }
  const std::uint64_t generation = load.order.generation;
  StartAftercare(record, std::move(loaded.checkpoint));
  return generation;
}

std::string Deployment::PartialFit(const LoadedCheckpoint& loaded) const {
  std::vector<std::string> parts;
  const auto tell = [&parts](const std::vector<std::string>& keys, const char* what) {
    if (!keys.empty()) parts.push_back(absl::StrCat(what, EscapeList(keys, kMostNamed)));
  };
  tell(loaded.left_aside, "left aside, because the graph does not know them: ");
  // Only an archive has values of its own.
  if (std::holds_alternative<config::TorchScriptGraph>(config_.graph)) {
    std::unordered_set<std::string_view> given;
    for (const storage::WeightTensor& tensor : loaded.plan.tensors) given.insert(tensor.key);
    std::vector<std::string> kept;
    for (const ParameterSpec& parameter : graph_->parameters()) {
      if (!given.contains(parameter.name)) kept.push_back(parameter.name);
    }
    tell(kept, "as in the archive, because the checkpoint has no value for them: ");
  }
  return absl::StrJoin(parts, "; ");
}

void Deployment::Remember(const LoadUnderWay& load, const LoadResult& result) {
  const absl::Time now = surroundings_.clock.Now();
  Attempt attempt{load.file, result.identity.value_or(load.listed), result.verdict,
                  std::string(result.status.message()), 0};
  std::shared_ptr<VersionRecord> current = Current();
  if (result.verdict == Verdict::kUnchanged && current != nullptr) {
    attempt.generation = current->generation;
    attempt.reason = absl::StrCat("holds the same weights as version ", current->version,
                                  ", generation ", current->generation.load());
  }
  const auto known = memory_.files.find(load.file);
  // What a reload tries again, or a retry, and finds as it was is no news.
  const Verdict before = known != memory_.files.end() && known->second.reason == attempt.reason &&
                                 known->second.identity == attempt.identity
                             ? known->second.verdict
                             : Verdict::kUntried;
  HistoryEntry entry{.time = now,
                     .version = load.order.version,
                     .file = load.file,
                     .reason = attempt.reason,
                     .phases = result.phases};
  const std::string file = Escape(load.file);
  const std::string model = Escape(config_.name);
  const Verdict verdict = Record(attempt, now, settings_, memory_);
  const LogScope about(
      {.model = config_.name, .version = load.order.version, .event = EventName(verdict)});
  switch (verdict) {
    case Verdict::kUnchanged:
      entry.event = HistoryEvent::kUnchanged;
      entry.generation = attempt.generation;
      journal_->CountReload("unchanged");
      journal_->SetLastGoodLoad(now);
      journal_->Add(std::move(entry));
      spdlog::info("model {}: {} {}; nothing is swapped", model, file, attempt.reason);
      break;
    case Verdict::kRefused:
      entry.event = HistoryEvent::kRefused;
      journal_->CountReload("refused");
      if (before == Verdict::kRefused) break;
      journal_->Add(std::move(entry));
      spdlog::warn("model {}: {} is refused: {}", model, file, OneLine(attempt.reason));
      break;
    case Verdict::kTransient:
      journal_->CountReload("retrying");
      if (before == Verdict::kTransient) break;
      entry.event = HistoryEvent::kRetrying;
      journal_->Add(std::move(entry));
      spdlog::warn("model {}: {} cannot be loaded now and is tried again: {}", model, file,
                   OneLine(attempt.reason));
      break;
    case Verdict::kTorn:
    case Verdict::kUnsettled:
    case Verdict::kUntried:
    case Verdict::kServed:
      spdlog::debug("model {}: {} is not whole yet: {}", model, file, OneLine(attempt.reason));
      break;
  }
}

void Deployment::StartAftercare(const std::shared_ptr<VersionRecord>& record,
                                std::shared_ptr<const storage::Checkpoint> source) {
  record->KeepSource(std::move(source));
  // While this waits for its turn it holds nothing that the next load of this model could need: a
  // version that made way meanwhile, and that no snapshot holds, is gone. Nothing of this
  // deployment is used: it may be gone by then too.
  surroundings_.after_swap([waiting = std::weak_ptr<VersionRecord>(record),
                            generation = record->generation.load(), how = config_.training_state,
                            journal = journal_, &surroundings = surroundings_] {
    const std::shared_ptr<VersionRecord> held = waiting.lock();
    if (held == nullptr) return;
    const auto pace = [&]() -> absl::Status {
      if (surroundings.stopping) return absl::CancelledError("the server stops");
      if (held->awaited > 0) return absl::OkStatus();
      if (!held->retired) GiveWay(*surroundings.compute);
      if (!held->retired) return absl::OkStatus();
      return absl::CancelledError("the version made way for another first");
    };
    TakeCareOf(*held, held->TakeSource(), how, surroundings.spool_folder, pace);
    journal->SetFileSha256(generation, held->aftermath().file_sha256);
    surroundings.wake();
  });
}

bool Deployment::MakeCurrent(std::uint64_t generation, std::uint64_t new_generation) {
  HistoryEntry entry{.time = surroundings_.clock.Now(),
                     .event = HistoryEvent::kServed,
                     .generation = new_generation};
  {
    MutexLock lock(mutex_);
    const auto found = std::find_if(records_.begin(), records_.end(), [&](const auto& record) {
      return record->generation == generation;
    });
    if (found == records_.end()) return false;
    (*found)->generation = current_ = new_generation;
    entry.version = (*found)->version;
    entry.file = (*found)->file;
    entry.file_sha256 = (*found)->aftermath().file_sha256;
    entry.weights_digest = (*found)->digest.ToHex();
  }
  path_->slot().MakeCurrent(generation, new_generation);
  Renumber(generation, new_generation, memory_);
  entry.reason = absl::StrCat("was still in memory, as generation ", generation);
  const LogScope about({.model = config_.name,
                        .version = entry.version,
                        .generation = new_generation,
                        .event = Name(entry.event)});
  spdlog::info("model {}: serves version {} again, as generation {} (it was {})",
               Escape(config_.name), entry.version, new_generation, generation);
  journal_->Add(std::move(entry));
  return true;
}

Slot::Handle Deployment::Unpublish(const std::shared_ptr<VersionRecord>& record,
                                   const std::string& why) {
  {
    MutexLock lock(mutex_);
    std::erase(records_, record);
    if (current_ == record->generation) current_ = 0;
  }
  record->retired = true;
  Slot::Handle handle = path_->slot().Remove(record->generation);
  if (!why.empty()) {
    journal_->Add({.time = surroundings_.clock.Now(),
                   .event = HistoryEvent::kRetired,
                   .version = record->version,
                   .generation = record->generation,
                   .file = record->file,
                   .weights_digest = record->digest.ToHex(),
                   .reason = why});
    const LogScope about({.model = config_.name,
                          .version = record->version,
                          .generation = record->generation,
                          .event = Name(HistoryEvent::kRetired)});
    spdlog::info("model {}: version {}, generation {} is retired: {}", Escape(config_.name),
                 record->version, record->generation.load(), why);
  }
  return handle;
}

void Deployment::DestroyOnLoader(Slot::Handle handle) {
  ++dying_;
  auto shared = std::make_shared<Slot::Handle>(std::move(handle));
  surroundings_.load([this, shared] {
    while (!Slot::DestroyWhenUnused(*shared, kWaitStep)) {
    }
    --dying_;
  });
}

void Deployment::UnloadAll() {
  path_->StopAdmitting(absl::UnavailableError(absl::StrCat(
      "model ", Escape(config_.name), " was unloaded by an admin; reload it to serve it again")));
  paused_ = true;
  for (const std::shared_ptr<VersionRecord>& record : Records()) {
    DestroyOnLoader(Unpublish(record, "the model was unloaded"));
  }
}

bool Deployment::TryRetire() {
  CancelLoad();
  Collect();
  if (load_ != nullptr || dying_ > 0 || path_.use_count() > 1) return false;
  if (!path_->WaitIdle(absl::InfinitePast())) return false;
  for (const std::shared_ptr<VersionRecord>& record : Records()) {
    Slot::Handle handle = Unpublish(record, "the model's config changed or was removed");
    Slot::DestroyWhenUnused(handle, kWaitForBlock);
  }
  return true;
}

std::vector<std::shared_ptr<VersionRecord>> Deployment::Records() const {
  MutexLock lock(mutex_);
  return {records_.rbegin(), records_.rend()};
}

std::shared_ptr<VersionRecord> Deployment::Current() const {
  MutexLock lock(mutex_);
  for (const std::shared_ptr<VersionRecord>& record : records_) {
    if (record->generation == current_) return record;
  }
  return nullptr;
}

std::vector<LoadedRow> Deployment::LoadedRows() const {
  std::vector<LoadedRow> rows;
  MutexLock lock(mutex_);
  for (const std::shared_ptr<VersionRecord>& record : records_) {
    rows.push_back({record->version, record->generation, record->file, record->stem,
                    record->identity, record->generation == current_});
  }
  return rows;
}

std::optional<LoadedRow> Deployment::CurrentRow() const {
  for (LoadedRow& row : LoadedRows()) {
    if (row.current) return std::move(row);
  }
  return std::nullopt;
}

}  // namespace relight::serving
