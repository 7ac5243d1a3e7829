// A pushed file and a downloaded snapshot without a disk: they record what is done with them.
#ifndef RELIGHT_TESTS_SERVER_RPC_FAKE_TRANSFERS_H_
#define RELIGHT_TESTS_SERVER_RPC_FAKE_TRANSFERS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

// What became of one push. Thread-safe.
class PushRecord {
 public:
  // Answers with these; set before use.
  std::function<absl::Status(std::size_t bytes)> on_write;  // Or read: all until then.
  std::function<absl::StatusOr<serving::PushResult>(const std::function<bool()>& wanted)> on_commit;

  std::string bytes() const {
    MutexLock lock(mutex_);
    return bytes_;
  }
  std::string sha256() const {
    MutexLock lock(mutex_);
    return sha256_;
  }
  void WaitBegun(int count = 1) {
    MutexLock lock(mutex_);
    while (begun_ < count) changed_.Wait(mutex_);
  }
  // Until nothing of what was begun is left.
  void WaitGone() {
    MutexLock lock(mutex_);
    while (begun_ == 0 || gone_ < begun_) changed_.Wait(mutex_);
  }
  // Until only so many are left.
  void WaitOpen(int count) {
    MutexLock lock(mutex_);
    while (begun_ - gone_ > count) changed_.Wait(mutex_);
  }
  int open() const {
    MutexLock lock(mutex_);
    return begun_ - gone_;
  }

  void Begin() {
    MutexLock lock(mutex_);
    ++begun_;
    changed_.SignalAll();
  }
  void Go() {
    MutexLock lock(mutex_);
    ++gone_;
    changed_.SignalAll();
  }
  std::size_t Add(absl::Span<const std::byte> bytes) {
    MutexLock lock(mutex_);
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return bytes_.size();
  }
  void SetSha256(const std::string& sha256) {
    MutexLock lock(mutex_);
    sha256_ = sha256;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  std::string bytes_ ABSL_GUARDED_BY(mutex_);
  std::string sha256_ ABSL_GUARDED_BY(mutex_);
  int begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int gone_ ABSL_GUARDED_BY(mutex_) = 0;
};

class FakeIncoming final : public serving::IncomingCheckpoint {
 public:
  explicit FakeIncoming(PushRecord& record) : record_(record) { record_.Begin(); }
  ~FakeIncoming() override { record_.Go(); }

  absl::Status Write(absl::Span<const std::byte> bytes) override {
    const std::size_t written = record_.Add(bytes);
    return record_.on_write ? record_.on_write(written) : absl::OkStatus();
  }
  absl::StatusOr<serving::PushResult> Commit(const std::string& file_sha256,
                                             const std::function<bool()>& wanted) override {
    record_.SetSha256(file_sha256);
    if (record_.on_commit) return record_.on_commit(wanted);
    return serving::PushResult{};
  }

 private:
  PushRecord& record_;
};

// `size_bytes` bytes, each the low byte of its position.
class FakeOutgoing final : public serving::OutgoingSnapshot {
 public:
  FakeOutgoing(serving::SnapshotResult result, PushRecord& record)
      : result_(std::move(result)), record_(record) {
    record_.Begin();
  }
  ~FakeOutgoing() override { record_.Go(); }

  const serving::SnapshotResult& result() const override { return result_; }
  absl::StatusOr<std::size_t> Read(absl::Span<std::byte> buffer) override {
    const std::size_t size = std::min<std::uint64_t>(buffer.size(), result_.size_bytes - position_);
    for (std::size_t i = 0; i < size; ++i) buffer[i] = static_cast<std::byte>(position_++ & 0xffU);
    if (record_.on_write) {
      const absl::Status status = record_.on_write(position_);
      if (!status.ok()) return status;
    }
    return size;
  }

 private:
  const serving::SnapshotResult result_;
  PushRecord& record_;
  std::uint64_t position_ = 0;
};

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_FAKE_TRANSFERS_H_
