// A device with memory of its own, on the host, that writes down what is asked of it.
#ifndef RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
#define RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_

#include <ATen/Functions.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "server/model/device.h"

namespace relight::model {

// Copies of weights, and back to the host, happen only when somebody waits for their stream or more
// is queued there, as late as a real device may do them; so whatever is freed or read too early
// shows as wrong answers, and under ASan as an error.
//
// Thread-safe, but for what LibTorch computes with what is there at once.
class RecordingDevice final : public Device {
 public:
  // What happened, in order: "allocate 256", "copy in 16 load", "synchronize load", "use compute",
  // "capture compute", "launch compute", "mark compute", "wait", "leave compute", "free 256". The
  // second stream for requests is "second".
  std::vector<std::string> events() const { return journal_->Read(); }
  void ClearEvents() { journal_->Clear(); }
  // The next CopyToDevice fails.
  void FailNextCopy() { fail_next_copy_ = true; }
  int host_tensors_made() const { return host_tensors_made_; }
  // The one that comes `at` captures from now, 1 being the next.
  void FailCapture(int at) { captures_until_failure_ = at; }
  // Called where a forward has been queued and is about to be waited for, outside all locks.
  void BeforeNextWait(std::function<void()> hook) { before_next_wait_ = std::move(hook); }
  void ComputeAtOnce(int forwards) { forwards_at_once_ = forwards; }
  void FailNextLaunch() { fail_next_launch_ = true; }

  const std::string& name() const override { return name_; }
  at::Device torch_device() const override { return at::Device(at::kCPU); }
  bool shares_host_memory() const override { return false; }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(std::size_t size_bytes) override {
    return std::shared_ptr<std::byte>(new std::byte[size_bytes](),
                                      std::default_delete<std::byte[]>());
  }
  at::Tensor EmptyHost(at::IntArrayRef shape, at::ScalarType type) override {
    ++host_tensors_made_;
    return at::empty(shape, at::TensorOptions(type));
  }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateDevice(std::size_t size_bytes) override {
    journal_->Add(absl::StrCat("allocate ", size_bytes));
    return std::shared_ptr<std::byte>(new std::byte[size_bytes],
                                      [journal = journal_, size_bytes](std::byte* block) {
                                        journal->Add(absl::StrCat("free ", size_bytes));
                                        delete[] block;
                                      });
  }
  absl::Status CopyToDevice(void* to, const void* from, std::size_t size_bytes,
                            Stream stream) override {
    if (fail_next_copy_.exchange(false)) return absl::InternalError("the copy failed");
    std::this_thread::yield();  // Others may come in between.
    MutexLock lock(mutex_);
    journal_->Add(absl::StrCat("copy in ", size_bytes, " ", Name(stream)));
    // Inputs are computed on at once, in their stream's order.
    if (stream == Stream::kLoad) {
      QueueOf(stream).push_back([=] { std::memcpy(to, from, size_bytes); });
    } else {
      DoQueuedLocked(stream);
      std::memcpy(to, from, size_bytes);
    }
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void* to, const void* from, std::size_t size_bytes,
                          Stream stream) override {
    std::this_thread::yield();
    MutexLock lock(mutex_);
    journal_->Add(absl::StrCat("copy out ", size_bytes, " ", Name(stream)));
    QueueOf(stream).push_back([=] { std::memcpy(to, from, size_bytes); });
    return absl::OkStatus();
  }
  absl::Status Synchronize(Stream stream) override {
    journal_->Add(absl::StrCat("synchronize ", Name(stream)));
    DoQueued(stream);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Mark>> SetMark(Stream stream) override {
    journal_->Add(absl::StrCat("mark ", Name(stream)));
    return std::make_unique<Waiter>(*this, stream);
  }
  int forwards_at_once() const override { return forwards_at_once_; }
  bool can_capture() const override { return true; }
  absl::StatusOr<std::unique_ptr<CapturedWork>> Capture(
      std::function<std::vector<at::Tensor>()> work, Stream stream,
      const CapturedWork* beside) override {
    if (captures_until_failure_-- == 1) return absl::InternalError("no capture");
    if (beside != nullptr && beside->stream() != stream) {
      return absl::InternalError("captured beside another stream's work");
    }
    journal_->Add(absl::StrCat("capture ", Name(stream)));
    // Its memory is there, and nothing is computed yet.
    std::vector<at::Tensor> outputs = work();
    for (at::Tensor& output : outputs) output.fill_(std::numeric_limits<double>::quiet_NaN());
    return std::make_unique<Repeater>(*this, stream, std::move(work), std::move(outputs));
  }
  std::unique_ptr<StreamScope> Use(Stream stream) override {
    return std::make_unique<Scope>(journal_, Name(stream));
  }

 private:
  // Outlives the device where blocks do.
  class Journal {
   public:
    void Add(std::string event) {
      MutexLock lock(mutex_);
      events_.push_back(std::move(event));
    }
    std::vector<std::string> Read() const {
      MutexLock lock(mutex_);
      return events_;
    }
    void Clear() {
      MutexLock lock(mutex_);
      events_.clear();
    }

   private:
    mutable Mutex mutex_;
    std::vector<std::string> events_ ABSL_GUARDED_BY(mutex_);
  };

  class Scope final : public StreamScope {
   public:
    Scope(std::shared_ptr<Journal> journal, std::string stream)
        : journal_(std::move(journal)), stream_(std::move(stream)) {
      journal_->Add("use " + stream_);
    }
    ~Scope() override { journal_->Add("leave " + stream_); }

   private:
    const std::shared_ptr<Journal> journal_;
    const std::string stream_;
  };

  class Waiter final : public Mark {
   public:
    Waiter(RecordingDevice& device, Stream stream) : device_(device), stream_(stream) {}
    absl::Status Wait() override {
      if (device_.before_next_wait_) std::exchange(device_.before_next_wait_, nullptr)();
      device_.journal_->Add("wait");
      device_.DoQueued(stream_);
      return absl::OkStatus();
    }

   private:
    RecordingDevice& device_;
    const Stream stream_;
  };

  // Computes again, of what then lies at the same addresses.
  class Repeater final : public CapturedWork {
   public:
    Repeater(RecordingDevice& device, Stream stream, std::function<std::vector<at::Tensor>()> work,
             std::vector<at::Tensor> outputs)
        : CapturedWork(stream, std::move(outputs)), device_(device), work_(std::move(work)) {}

    absl::Status Launch() override {
      if (device_.fail_next_launch_.exchange(false)) return absl::InternalError("no launch");
      std::this_thread::yield();
      MutexLock lock(device_.mutex_);
      device_.journal_->Add(absl::StrCat("launch ", Name(stream())));
      device_.DoQueuedLocked(stream());
      const std::vector<at::Tensor> results = work_();
      for (std::size_t i = 0; i < results.size(); ++i) {
        std::memcpy(outputs()[i].data_ptr(), results[i].data_ptr(), results[i].nbytes());
      }
      return absl::OkStatus();
    }

   private:
    RecordingDevice& device_;
    const std::function<std::vector<at::Tensor>()> work_;
  };

  using Queue = std::vector<std::function<void()>>;

  Queue& QueueOf(Stream stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return queued_.at(static_cast<std::size_t>(stream));
  }
  void DoQueued(Stream stream) {
    MutexLock lock(mutex_);
    DoQueuedLocked(stream);
  }
  void DoQueuedLocked(Stream stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const auto& copy : std::exchange(QueueOf(stream), {})) copy();
  }

  static std::string Name(Stream stream) {
    switch (stream) {
      case Stream::kCompute:
        return "compute";
      case Stream::kSecondCompute:
        return "second";
      case Stream::kLoad:
        break;
    }
    return "load";
  }

  const std::string name_ = "recording:0";
  const std::shared_ptr<Journal> journal_ = std::make_shared<Journal>();
  Mutex mutex_;
  std::array<Queue, 3> queued_ ABSL_GUARDED_BY(mutex_);
  std::atomic<int> forwards_at_once_{1};
  std::atomic<int> host_tensors_made_{0};
  std::atomic<bool> fail_next_copy_{false};
  std::atomic<int> captures_until_failure_{0};
  std::function<void()> before_next_wait_;
  std::atomic<bool> fail_next_launch_{false};
};

}  // namespace relight::model

#endif  // RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
