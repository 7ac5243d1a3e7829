// What to do next about one model's checkpoints: a pure function from what lies in the folder, what
// is remembered of each file, what is loaded and what the operator asked for, to one action. No
// clock, no lock, no file.
//
//   Observe(listing, now, settings, memory);      after each scan
//   Decision next = Decide(input);                until it says kNothing
//   Record(attempt, now, settings, memory);       after each load
//
// Rules, in the order in which they count: an unloaded model has nothing loaded; a pinned model
// serves exactly that version; else the newest candidate that can be loaded serves. A model never
// goes back to an older checkpoint by itself, and a file that disappears unloads nothing.
#ifndef RELIGHT_SERVER_SERVING_VERSION_POLICY_H_
#define RELIGHT_SERVER_SERVING_VERSION_POLICY_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "server/config/model_config.h"
#include "server/serving/status.h"
#include "storage/folder.h"

namespace relight::serving {

struct PolicySettings {
  absl::Duration settle_time = absl::Seconds(1);
  absl::Duration torn_timeout = absl::Seconds(30);
  absl::Duration removal_grace = absl::Seconds(5);
  absl::Duration first_retry = absl::Seconds(1);
  absl::Duration last_retry = absl::Seconds(60);
};

// How the last load of a file ended.
enum class Verdict {
  kUntried,
  kServed,
  kUnchanged,  // It holds the weights that generation `generation` serves.
  kUnsettled,  // It has no checksums, and had not been still for long enough.
  kTorn,       // It looks as if it were still being written.
  kRefused,    // It cannot be served as it is.
  kTransient,  // The reason may pass although the file does not change.
};

// What is remembered of one file, by its name below the folder.
struct FileMemory {
  std::string stem;
  storage::FileIdentity identity;
  absl::Time still_since;      // Since when it has had this identity.
  bool arrived_whole = false;  // Came by rename: it was never seen growing.
  int missed_scans = 0;        // In a row; 0: it is in the folder.
  absl::Time missing_since;
  bool forced = false;  // To be tried now, whatever the last verdict.

  Verdict verdict = Verdict::kUntried;
  std::string reason;
  std::uint64_t generation = 0;  // Of kServed and kUnchanged.
  int attempts = 0;              // Failed ones in a row.
  absl::Time torn_since = absl::InfiniteFuture();
  absl::Time next_try = absl::InfinitePast();
};

struct FolderMemory {
  bool scanned = false;  // At least once.
  std::map<std::string, FileMemory> files;
  std::vector<std::pair<std::string, std::string>> passed_over;  // Name, reason.
};

// Takes in one full listing. A file counts as removed, and is forgotten, only once two scans and
// `removal_grace` have passed without it. Do not call it for a listing that failed.
void Observe(const std::vector<storage::FolderEntry>& listing, absl::Time now,
             const PolicySettings& settings, FolderMemory& memory);

struct Attempt {
  std::string file;
  storage::FileIdentity identity;  // Of what was opened.
  Verdict verdict = Verdict::kRefused;
  std::string reason;
  std::uint64_t generation = 0;
};

// Takes in how a load ended. Returns the verdict that counts: a torn file that has not grown for
// `torn_timeout` is refused.
Verdict Record(const Attempt& attempt, absl::Time now, const PolicySettings& settings,
               FolderMemory& memory);

// What is loaded as `generation` is `new_generation` from now on.
void Renumber(std::uint64_t generation, std::uint64_t new_generation, FolderMemory& memory);

// Has every file tried at the next occasion, whatever is known of it.
void ForceAll(FolderMemory& memory);
// Has one file tried at the next occasion that is known to be whole: where it was not tried yet, or
// waits until it has been still.
void ForceWhole(const std::string& name, FolderMemory& memory);
void EndForce(FolderMemory& memory);

// A generation in memory, and the file that it came from.
struct LoadedRow {
  std::int64_t version = 0;
  std::uint64_t generation = 0;
  std::string file;
  std::string stem;
  storage::FileIdentity identity;
  bool current = false;
};

struct PolicyInput {
  const FolderMemory& memory;
  const config::VersionRule& rule;
  std::vector<LoadedRow> loaded;
  // What the model serves under the config before this one, where nothing is current here yet:
  // nothing older takes its place unasked.
  std::optional<LoadedRow> serves_elsewhere = std::nullopt;
  // The folder could not be listed: nothing in it can be loaded, and nothing of it is gone.
  bool unlisted = false;
  std::optional<std::int64_t> pin = std::nullopt;
  bool unloaded = false;
  std::optional<std::string> loading =
      std::nullopt;  // The file that is being loaded; nothing else starts then.
  absl::Time now;
  PolicySettings settings = {};
};

struct Decision {
  enum class Action { kNothing, kLoad, kMakeCurrent, kUnloadAll };
  Action action = Action::kNothing;
  std::string file;          // kLoad
  std::string stem;          // kLoad
  std::int64_t version = 0;  // kLoad
  bool settled = false;      // kLoad: a file without checksums may be taken too.
  // kLoad: weights equal to those that serve need no swap. Not so where a version was asked for.
  bool unchanged_will_do = true;
  std::uint64_t generation = 0;  // kMakeCurrent
  // When to ask again although nothing changed.
  absl::Time wake = absl::InfiniteFuture();

  // For the status: every file with its state and reason, newest first.
  std::vector<CandidateStatus> candidates;
  std::string rule;
  std::string newest_problem;  // Why the newest candidate is not served; empty where it is.
  std::string reason;          // Why nothing is done although something could be expected.
};

Decision Decide(const PolicyInput& input);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_VERSION_POLICY_H_
