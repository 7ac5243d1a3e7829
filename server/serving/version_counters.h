// What the requests that one version answered cost.
//
// Thread-safe; adding takes no lock.
#ifndef RELIGHT_SERVER_SERVING_VERSION_COUNTERS_H_
#define RELIGHT_SERVER_SERVING_VERSION_COUNTERS_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "server/serving/histogram.h"
#include "server/serving/statistics.h"

namespace relight::serving {

struct BatchTimes {
  std::chrono::nanoseconds input{0};   // Until the graph had its inputs.
  std::chrono::nanoseconds infer{0};   // In the graph.
  std::chrono::nanoseconds output{0};  // Until each request had its part.
};

class VersionCounters {
 public:
  VersionCounters() = default;
  ~VersionCounters();
  VersionCounters(const VersionCounters&) = delete;
  VersionCounters& operator=(const VersionCounters&) = delete;

  // One execution that answered `requests` with `rows` together. Each of them is counted with the
  // times of the whole batch, as clients of the protocol expect.
  void AddBatch(std::uint64_t requests, std::uint64_t rows, const BatchTimes& times,
                absl::Time when);
  // One request of such a batch: how long it waited, and how long it took with its batch.
  void AddSuccess(std::chrono::nanoseconds queue, std::chrono::nanoseconds total);
  void AddFailure(std::chrono::nanoseconds total);

  // `version` of the result is left at 0.
  VersionStatistics Read() const;

 private:
  // Batch sizes seen so far, found by hash; only ever added to.
  struct SizeCounters {
    std::uint64_t rows;
    SizeCounters* next;
    AtomicDuration input, infer, output;
  };
  SizeCounters& ForSize(std::uint64_t rows);

  static constexpr std::size_t kBuckets = 64;

  std::atomic<std::int64_t> last_inference_ns_{0};
  std::atomic<std::uint64_t> inference_count_{0};
  std::atomic<std::uint64_t> execution_count_{0};
  AtomicDuration success_, fail_, queue_, input_, infer_, output_;
  std::array<std::atomic<SizeCounters*>, kBuckets> sizes_{};
};

// Adds what `from` counted to `into`, which keeps its version.
void Merge(const VersionStatistics& from, VersionStatistics& into);

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_VERSION_COUNTERS_H_
