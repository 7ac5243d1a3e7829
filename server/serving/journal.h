// What happened to one model: its history, and the totals of its reloads for the metrics.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_JOURNAL_H_
#define RELIGHT_SERVER_SERVING_JOURNAL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/mutex.h"
#include "server/serving/statistics.h"
#include "server/serving/status.h"

namespace relight::serving {

class Journal {
 public:
  // The oldest entries make way.
  static constexpr std::size_t kCapacity = 256;

  void Add(HistoryEntry entry);
  // Newest first; 0 for all.
  std::vector<HistoryEntry> Newest(std::size_t limit) const;
  // The SHA-256 of a generation's file becomes known after it was served.
  void SetFileSha256(std::uint64_t generation, const std::string& sha256);

  // "served", "unchanged", "refused" or "retrying".
  void CountReload(const std::string& outcome);
  void CountPhase(const std::string& phase, absl::Duration duration);
  void SetLastGoodLoad(absl::Time when);
  std::optional<absl::Time> last_good_load() const;

  // Fills the reload side's totals of `out`.
  void Fill(absl::Time now, ModelStatistics& out) const;

 private:
  mutable Mutex mutex_;
  std::deque<HistoryEntry> entries_ ABSL_GUARDED_BY(mutex_);  // Oldest first.
  std::map<std::string, std::uint64_t> reloads_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, DurationTotal> phases_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Time> last_good_load_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_JOURNAL_H_
