#include "server/serving/journal.h"

#include <algorithm>
#include <utility>

namespace relight::serving {

void Journal::Add(HistoryEntry entry) {
  MutexLock lock(mutex_);
  if (entries_.size() == kCapacity) entries_.pop_front();
  entries_.push_back(std::move(entry));
}

std::vector<HistoryEntry> Journal::Newest(std::size_t limit) const {
  MutexLock lock(mutex_);
  const std::size_t count = limit == 0 ? entries_.size() : std::min(limit, entries_.size());
  return {entries_.rbegin(), entries_.rbegin() + static_cast<std::ptrdiff_t>(count)};
}

void Journal::SetFileSha256(std::uint64_t generation, const std::string& sha256) {
  MutexLock lock(mutex_);
  for (HistoryEntry& entry : entries_) {
    if (entry.generation == generation && entry.event == HistoryEvent::kServed) {
      entry.file_sha256 = sha256;
    }
  }
}

void Journal::CountReload(const std::string& outcome) {
  MutexLock lock(mutex_);
  ++reloads_[outcome];
}

void Journal::CountPhase(const std::string& phase, absl::Duration duration) {
  MutexLock lock(mutex_);
  DurationTotal& total = phases_[phase];
  ++total.count;
  total.nanoseconds +=
      static_cast<std::uint64_t>(std::max<std::int64_t>(absl::ToInt64Nanoseconds(duration), 0));
}

void Journal::SetLastGoodLoad(absl::Time when) {
  MutexLock lock(mutex_);
  last_good_load_ = when;
}

std::optional<absl::Time> Journal::last_good_load() const {
  MutexLock lock(mutex_);
  return last_good_load_;
}

void Journal::Fill(absl::Time now, ModelStatistics& out) const {
  MutexLock lock(mutex_);
  out.reloads = reloads_;
  for (const char* outcome : {"served", "unchanged", "refused", "retrying"}) {
    out.reloads.try_emplace(outcome, 0);
  }
  out.reload_phases = phases_;
  out.seconds_since_last_good_load =
      last_good_load_.has_value() ? absl::ToDoubleSeconds(now - *last_good_load_) : -1;
}

}  // namespace relight::serving
