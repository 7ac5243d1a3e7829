#include "server/serving/version_policy.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/serving/version_rule.h"

namespace relight::serving {
namespace {

using storage::FileIdentity;

absl::Duration Backoff(int attempts, const PolicySettings& settings) {
  const int doublings = std::clamp(attempts - 1, 0, 30);
  return std::min(settings.first_retry * (std::int64_t{1} << doublings), settings.last_retry);
}

bool InodeKnown(const FolderMemory& memory, const FileIdentity& identity) {
  return std::any_of(memory.files.begin(), memory.files.end(), [&](const auto& file) {
    return file.second.identity.device == identity.device &&
           file.second.identity.inode == identity.inode;
  });
}

// A rename touches the change time and not the modification time.
bool ArrivedByRename(const FolderMemory& memory, const FileIdentity& identity) {
  return identity.changed > identity.modified && !InodeKnown(memory, identity);
}

absl::Time SettledAt(const FileMemory& file, const PolicySettings& settings) {
  if (file.arrived_whole) return absl::InfinitePast();
  return file.still_since + settings.settle_time;
}

struct Ranked {
  const std::string* name = nullptr;
  const FileMemory* file = nullptr;
  std::int64_t version = 0;

  auto Key() const { return std::tie(version, file->identity.modified, *name); }
};

CandidateStatus Describe(const std::string& name, const FileMemory& file) {
  CandidateStatus status;
  status.file = name;
  status.size_bytes = file.identity.size_bytes;
  status.modified = file.identity.modified;
  return status;
}

CandidateStatus PassOver(const std::string& name, const FileMemory& file, std::string reason) {
  CandidateStatus status = Describe(name, file);
  status.state = VersionState::kPassedOver;
  status.reason = std::move(reason);
  return status;
}

// One decision in the making.
class Decider {
 public:
  explicit Decider(const PolicyInput& input) : in_(input) {
    for (const LoadedRow& row : in_.loaded) {
      if (row.current) current_ = &row;
    }
    serves_ = current_;
    if (serves_ == nullptr && in_.serves_elsewhere.has_value()) serves_ = &*in_.serves_elsewhere;
  }

  Decision Run() {
    Rank();
    for (const Ranked& candidate : ranked_) out_.candidates.push_back(StatusOf(candidate));
    SayWhatIsWrongWithTheNewest();
    out_.candidates.insert(out_.candidates.end(), skipped_.begin(), skipped_.end());
    for (const auto& [name, reason] : in_.memory.passed_over) {
      if (in_.unlisted) break;
      out_.candidates.push_back(PassOver(name, FileMemory{}, reason));
    }
    Choose();
    return std::move(out_);
  }

 private:
  void Rank() {
    std::vector<std::string> stems;
    for (const auto& [name, file] : in_.memory.files) stems.push_back(file.stem);
    const VersionReader reader = VersionReader::Choose(in_.rule, stems);
    out_.rule = reader.words();
    for (const auto& [name, file] : in_.memory.files) {
      if (in_.unlisted || file.missed_scans > 0) continue;
      const absl::StatusOr<std::int64_t> version = reader.Read(file.stem, file.identity.modified);
      if (version.ok()) {
        ranked_.push_back({&name, &file, *version});
      } else {
        skipped_.push_back(PassOver(name, file, std::string(version.status().message())));
      }
    }
    std::sort(ranked_.begin(), ranked_.end(),
              [](const Ranked& a, const Ranked& b) { return a.Key() > b.Key(); });
    DropDuplicates();
    if (serves_ != nullptr) {
      const auto version = reader.Read(serves_->stem, serves_->identity.modified);
      if (version.ok()) serves_version_ = *version;
    }
  }

  void DropDuplicates() {
    std::vector<Ranked> kept;
    for (const Ranked& candidate : ranked_) {
      if (!kept.empty() && kept.back().version == candidate.version) {
        CandidateStatus status =
            PassOver(*candidate.name, *candidate.file,
                     absl::StrCat("has version ", candidate.version, " like ",
                                  Escape(*kept.back().name), ", which is newer"));
        status.version = candidate.version;
        skipped_.push_back(std::move(status));
      } else {
        kept.push_back(candidate);
      }
    }
    ranked_ = std::move(kept);
  }

  const LoadedRow* LoadedFrom(const FileMemory& file) const {
    if (file.verdict != Verdict::kServed && file.verdict != Verdict::kUnchanged) return nullptr;
    for (const LoadedRow& row : in_.loaded) {
      if (row.generation == file.generation) return &row;
    }
    return nullptr;
  }

  CandidateStatus StatusOf(const Ranked& candidate) const {
    const FileMemory& file = *candidate.file;
    CandidateStatus status = Describe(*candidate.name, file);
    status.version = candidate.version;
    status.reason = file.reason;
    if (in_.loading == *candidate.name) {
      status.state = VersionState::kLoading;
      return status;
    }
    const LoadedRow* loaded = LoadedFrom(file);
    switch (file.verdict) {
      case Verdict::kUntried:
        status.state = VersionState::kFound;
        if (current_ != nullptr && *candidate.name == current_->file &&
            file.identity == current_->identity) {
          // The folder was gone for so long that its files were forgotten, and came back.
          status.state = VersionState::kServing;
        } else if (!in_.pin.has_value() && !MayFollow(candidate)) {
          status.reason = absl::StrCat("is older than ", Escape(serves_->file),
                                       ", which serves; pin its version to serve it");
        }
        break;
      case Verdict::kServed:
      case Verdict::kUnchanged:
        status.state = loaded == nullptr ? VersionState::kRetired
                       : loaded->current ? VersionState::kServing
                                         : VersionState::kLoaded;
        break;
      case Verdict::kUnsettled:
      case Verdict::kTorn:
        status.state = VersionState::kWaiting;
        break;
      case Verdict::kRefused:
        status.state = VersionState::kRefused;
        break;
      case Verdict::kTransient:
        status.state = VersionState::kRetrying;
        break;
    }
    return status;
  }

  void SayWhatIsWrongWithTheNewest() {
    if (out_.candidates.empty()) return;
    const CandidateStatus& newest = out_.candidates.front();
    switch (newest.state) {
      case VersionState::kWaiting:
      case VersionState::kRefused:
      case VersionState::kRetrying:
        out_.newest_problem = absl::StrCat(Escape(newest.file), ": ", newest.reason);
        break;
      default:
        break;
    }
  }

  // When `file` may be tried; infinite where only a change of the file helps.
  absl::Time ReadyAt(const FileMemory& file) const {
    if (file.forced) return absl::InfinitePast();
    switch (file.verdict) {
      case Verdict::kUntried:
      case Verdict::kServed:
      case Verdict::kUnchanged:
        return absl::InfinitePast();
      case Verdict::kUnsettled:
        return SettledAt(file, in_.settings);
      case Verdict::kTorn:
      case Verdict::kTransient:
        return file.next_try;
      case Verdict::kRefused:
        return absl::InfiniteFuture();
    }
    return absl::InfiniteFuture();
  }

  bool NewerThanServed(const Ranked& candidate) const {
    if (serves_ == nullptr) return true;
    const absl::Time modified = candidate.file->identity.modified;
    if (!serves_version_.has_value()) return modified > serves_->identity.modified;
    return std::tie(candidate.version, modified) >
           std::tie(*serves_version_, serves_->identity.modified);
  }

  // Whether `candidate` may be served after what serves now: it is newer, or it is the file that is
  // served, which was overwritten, leads elsewhere now, or has to be loaded for a changed config.
  bool MayFollow(const Ranked& candidate) const {
    if (NewerThanServed(candidate)) return true;
    if (*candidate.name != serves_->file) return false;
    return current_ == nullptr || candidate.file->identity != serves_->identity;
  }

  // Takes `candidate` as the next action where its time has come.
  bool TryLoad(const Ranked& candidate) {
    const absl::Time ready_at = ReadyAt(*candidate.file);
    if (ready_at > in_.now) {
      out_.wake = std::min(out_.wake, ready_at);
      return false;
    }
    out_.action = Decision::Action::kLoad;
    out_.file = *candidate.name;
    out_.stem = candidate.file->stem;
    out_.version = candidate.version;
    out_.unchanged_will_do = !in_.pin.has_value();
    out_.settled = candidate.file->forced || SettledAt(*candidate.file, in_.settings) <= in_.now;
    return true;
  }

  void MakeCurrent(const LoadedRow& row) {
    if (row.current) return;
    out_.action = Decision::Action::kMakeCurrent;
    out_.generation = row.generation;
  }

  void Choose() {
    if (in_.loading.has_value()) return;
    if (in_.unloaded) {
      if (!in_.loaded.empty()) out_.action = Decision::Action::kUnloadAll;
      return;
    }
    if (in_.pin.has_value()) {
      ChoosePinned(*in_.pin);
    } else {
      ChooseNewest();
    }
  }

  void ChoosePinned(std::int64_t version) {
    if (current_ != nullptr && current_->version == version) return;
    const LoadedRow* newest = nullptr;
    for (const LoadedRow& row : in_.loaded) {
      if (row.version != version) continue;
      if (newest == nullptr || row.generation > newest->generation) newest = &row;
    }
    if (newest != nullptr) return MakeCurrent(*newest);
    for (const Ranked& candidate : ranked_) {
      if (candidate.version != version) continue;
      if (!TryLoad(candidate)) {
        out_.reason = absl::StrCat("pinned to version ", version,
                                   ", which cannot be served: ", candidate.file->reason);
      }
      return;
    }
    out_.reason = absl::StrCat("pinned to version ", version,
                               ", which is neither loaded nor in the folder; push it or unpin");
  }

  void ChooseNewest() {
    for (const Ranked& candidate : ranked_) {
      if (const LoadedRow* row = LoadedFrom(*candidate.file); row != nullptr) {
        if (row->current || NewerThanServed(candidate)) return MakeCurrent(*row);
        continue;
      }
      if (MayFollow(candidate) && TryLoad(candidate)) return;
    }
    if (current_ == nullptr && serves_ != nullptr) {
      out_.reason =
          absl::StrCat("no checkpoint in the folder that is as new as version ", serves_->version,
                       ", which serves, can be loaded: push one, or "
                       "pin an older version");
    }
  }

  const PolicyInput& in_;
  const LoadedRow* current_ = nullptr;
  const LoadedRow* serves_ = nullptr;           // That, or what serves under another config.
  std::optional<std::int64_t> serves_version_;  // Under the rule in force.
  std::vector<Ranked> ranked_;                  // Newest first.
  std::vector<CandidateStatus> skipped_;
  Decision out_;
};

}  // namespace

void Observe(const std::vector<storage::FolderEntry>& listing, absl::Time now,
             const PolicySettings& settings, FolderMemory& memory) {
  memory.passed_over.clear();
  std::set<std::string> present;
  std::vector<std::pair<std::string, FileMemory>> changed;
  for (const storage::FolderEntry& entry : listing) {
    if (!entry.candidate) {
      memory.passed_over.emplace_back(entry.name, entry.reason);
      continue;
    }
    present.insert(entry.name);
    const auto known = memory.files.find(entry.name);
    if (known != memory.files.end() && known->second.identity == entry.identity) {
      known->second.missed_scans = 0;
      continue;
    }
    FileMemory file;
    file.stem = entry.stem;
    file.identity = entry.identity;
    // Of what was there at the start, a file that was written long ago needs no waiting; one from
    // the future cannot be judged by its time. Later on no file is: its clock may be another's.
    file.still_since = memory.scanned ? now : std::min(now, entry.identity.modified);
    file.arrived_whole = ArrivedByRename(memory, entry.identity);
    file.forced = known != memory.files.end() && known->second.forced;
    changed.emplace_back(entry.name, std::move(file));
  }
  for (auto& [name, file] : changed) memory.files[name] = std::move(file);
  memory.scanned = true;

  for (auto item = memory.files.begin(); item != memory.files.end();) {
    FileMemory& file = item->second;
    if (present.contains(item->first)) {
      ++item;
      continue;
    }
    if (file.missed_scans++ == 0) file.missing_since = now;
    const bool gone = file.missed_scans >= 2 && now - file.missing_since >= settings.removal_grace;
    item = gone ? memory.files.erase(item) : std::next(item);
  }
}

Verdict Record(const Attempt& attempt, absl::Time now, const PolicySettings& settings,
               FolderMemory& memory) {
  const auto found = memory.files.find(attempt.file);
  if (found == memory.files.end()) return attempt.verdict;
  FileMemory& file = found->second;
  if (file.identity != attempt.identity) {
    // What was read is not what was listed. The next scan compares against what was read.
    file.arrived_whole = ArrivedByRename(memory, attempt.identity);
    file.identity = attempt.identity;
    file.still_since = now;
    file.attempts = 0;
    file.torn_since = absl::InfiniteFuture();
  }
  const bool torn = attempt.verdict == Verdict::kTorn;
  file.torn_since = torn ? std::min(file.torn_since, now) : absl::InfiniteFuture();
  file.forced = false;
  file.verdict = attempt.verdict;
  file.reason = attempt.reason;
  file.generation = attempt.generation;
  const bool failed = torn || attempt.verdict == Verdict::kTransient;
  file.attempts = failed ? file.attempts + 1 : 0;
  file.next_try = now + Backoff(file.attempts, settings);
  if (torn) {
    const absl::Time give_up = file.torn_since + settings.torn_timeout;
    if (now >= give_up) file.verdict = Verdict::kRefused;
    file.next_try = std::min(file.next_try, give_up);
  }
  return file.verdict;
}

void Renumber(std::uint64_t generation, std::uint64_t new_generation, FolderMemory& memory) {
  for (auto& [name, file] : memory.files) {
    if (file.generation == generation) file.generation = new_generation;
  }
}

void ForceAll(FolderMemory& memory) {
  for (auto& [name, file] : memory.files) file.forced = true;
}

void ForceWhole(const std::string& name, FolderMemory& memory) {
  const auto found = memory.files.find(name);
  if (found == memory.files.end()) return;
  FileMemory& file = found->second;
  const bool waits = file.verdict == Verdict::kUntried || file.verdict == Verdict::kUnsettled;
  file.forced = file.forced || waits;
}

void EndForce(FolderMemory& memory) {
  for (auto& [name, file] : memory.files) file.forced = false;
}

Decision Decide(const PolicyInput& input) { return Decider(input).Run(); }

}  // namespace relight::serving
