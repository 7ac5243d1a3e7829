#include "client/ctl/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/ctl/output.h"

namespace relight::ctl {
namespace {

constexpr int kBarWidth = 30;
constexpr absl::Duration kPatience = absl::Seconds(1);
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);
constexpr std::string_view kSpokes = "|/-\\";
constexpr char kErase[] = "\r\x1b[K";

void Write(const std::string& text) {
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
}

}  // namespace

std::string RenderShare(std::string_view name, std::uint64_t done_bytes,
                        std::uint64_t total_bytes) {
  const double share =
      std::min(1.0, static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const auto filled = static_cast<std::size_t>(share * kBarWidth);
  return absl::StrFormat("%s  [%s%s]  %3d%%  %s of %s", std::string(name), std::string(filled, '#'),
                         std::string(kBarWidth - filled, ' '), static_cast<int>(share * 100),
                         FormatBytes(done_bytes), FormatBytes(total_bytes));
}

std::string RenderElapsed(std::string_view name, absl::Duration elapsed, std::size_t frame) {
  return absl::StrCat(std::string(name), "  ", std::string(1, kSpokes[frame % kSpokes.size()]),
                      "  ", FormatAge(elapsed));
}

ProgressBar::ProgressBar(std::string name) : name_(std::move(name)), started_(absl::Now()) {
  if (isatty(STDERR_FILENO) == 1) thread_ = std::thread([this] { Draw(); });
}

ProgressBar::~ProgressBar() {
  {
    MutexLock lock(mutex_);
    over_ = true;
  }
  over_changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void ProgressBar::Update(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  MutexLock lock(mutex_);
  done_bytes_ = done_bytes;
  total_bytes_ = total_bytes;
}

void ProgressBar::Draw() {
  absl::Time next = started_ + kPatience;
  for (std::size_t frame = 0;; ++frame) {
    const std::string line = NextLine(next, frame);
    if (line.empty()) {
      if (frame > 0) Write(kErase);
      return;
    }
    Write(absl::StrCat(kErase, line));
    next = absl::Now() + kRedrawInterval;
  }
}

std::string ProgressBar::NextLine(absl::Time next, std::size_t frame) {
  MutexLock lock(mutex_);
  while (!over_) {
    const absl::Time now = absl::Now();
    if (now >= next) {
      return total_bytes_ == 0 ? RenderElapsed(name_, now - started_, frame)
                               : RenderShare(name_, done_bytes_, total_bytes_);
    }
    over_changed_.WaitFor(mutex_, next - now);
  }
  return "";
}

}  // namespace relight::ctl
