// What people see on a terminal while something takes its time.
#ifndef RELIGHT_CLIENT_CTL_PROGRESS_H_
#define RELIGHT_CLIENT_CTL_PROGRESS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight::ctl {

// From a second after its making until its end it keeps a line on stderr, where that is a terminal:
// "name  [#####     ]  52%  1.0 GiB of 2.0 GiB" once a total is known, else "name  |  3s". Then it
// erases the line. Draws on a thread of its own, so that it also moves while a call blocks.
class ProgressBar {
 public:
  explicit ProgressBar(std::string name);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(std::uint64_t done_bytes, std::uint64_t total_bytes);

 private:
  void Draw();
  // Returns at `next` the line to draw; empty where the end came first.
  std::string NextLine(absl::Time next, std::size_t frame);

  const std::string name_;
  const absl::Time started_;
  Mutex mutex_;
  CondVar over_changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::uint64_t done_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t total_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;  // Only where stderr is a terminal.
};

// Returns what `call` does, under a ProgressBar of this name.
template <typename Call>
auto WithProgress(std::string name, Call call) {
  ProgressBar progress(std::move(name));
  return call();
}

// The two forms of the line; pure.
std::string RenderShare(std::string_view name, std::uint64_t done_bytes, std::uint64_t total_bytes);
std::string RenderElapsed(std::string_view name, absl::Duration elapsed, std::size_t frame);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_PROGRESS_H_
