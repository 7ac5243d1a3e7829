// A device with memory of its own, on the host, that writes down what is asked of it.
#ifndef RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
#define RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_

#include <ATen/Functions.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/device.h"

namespace relight::model {

// Copies happen only when somebody waits for their stream, as late as a real device may do them; so
// whatever is freed or read too early shows as wrong answers, and under ASan as an error.
//
// Thread-compatible.
class RecordingDevice final : public Device {
 public:
  // What happened, in order: "allocate 256", "copy in 16 load", "synchronize load", "use compute",
  // "capture", "launch", "mark", "wait", "leave compute", "free 256".
  const std::vector<std::string>& events() const { return *events_; }
  void ClearEvents() { events_->clear(); }
  // The next CopyToDevice fails.
  void FailNextCopy() { fail_next_copy_ = true; }
  int host_tensors_made() const { return host_tensors_made_; }
  void FailNextCapture() { fail_next_capture_ = true; }

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
    events_->push_back(absl::StrCat("allocate ", size_bytes));
    return std::shared_ptr<std::byte>(new std::byte[size_bytes],
                                      [events = events_, size_bytes](std::byte* block) {
                                        events->push_back(absl::StrCat("free ", size_bytes));
                                        delete[] block;
                                      });
  }
  absl::Status CopyToDevice(void* to, const void* from, std::size_t size_bytes,
                            Stream stream) override {
    if (std::exchange(fail_next_copy_, false)) return absl::InternalError("the copy failed");
    events_->push_back(absl::StrCat("copy in ", size_bytes, " ", Name(stream)));
    // Inputs are computed on at once, in their stream's order.
    if (stream == Stream::kCompute) {
      std::memcpy(to, from, size_bytes);
    } else {
      queued_.push_back([=] { std::memcpy(to, from, size_bytes); });
    }
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void* to, const void* from, std::size_t size_bytes,
                          Stream stream) override {
    events_->push_back(absl::StrCat("copy out ", size_bytes, " ", Name(stream)));
    queued_.push_back([=] { std::memcpy(to, from, size_bytes); });
    return absl::OkStatus();
  }
  absl::Status Synchronize(Stream stream) override {
    events_->push_back(absl::StrCat("synchronize ", Name(stream)));
    DoQueued();
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Mark>> SetMark() override {
    events_->push_back("mark");
    return std::make_unique<Waiter>(*this);
  }
  bool can_capture() const override { return true; }
  absl::StatusOr<std::unique_ptr<CapturedWork>> Capture(
      std::function<std::vector<at::Tensor>()> work, const CapturedWork*) override {
    if (std::exchange(fail_next_capture_, false)) return absl::InternalError("no capture");
    events_->push_back("capture");
    // Its memory is there, and nothing is computed yet.
    std::vector<at::Tensor> outputs = work();
    for (at::Tensor& output : outputs) output.fill_(std::numeric_limits<double>::quiet_NaN());
    return std::make_unique<Repeater>(events_, std::move(work), std::move(outputs));
  }
  std::unique_ptr<StreamScope> Use(Stream stream) override {
    return std::make_unique<Scope>(events_, Name(stream));
  }

 private:
  class Scope final : public StreamScope {
   public:
    Scope(std::shared_ptr<std::vector<std::string>> events, std::string stream)
        : events_(std::move(events)), stream_(std::move(stream)) {
      events_->push_back("use " + stream_);
    }
    ~Scope() override { events_->push_back("leave " + stream_); }

   private:
    const std::shared_ptr<std::vector<std::string>> events_;
    const std::string stream_;
  };

  class Waiter final : public Mark {
   public:
    explicit Waiter(RecordingDevice& device) : device_(device) {}
    absl::Status Wait() override {
      device_.events_->push_back("wait");
      device_.DoQueued();
      return absl::OkStatus();
    }

   private:
    RecordingDevice& device_;
  };

  // Computes again, of what then lies at the same addresses.
  class Repeater final : public CapturedWork {
   public:
    Repeater(std::shared_ptr<std::vector<std::string>> events,
             std::function<std::vector<at::Tensor>()> work, std::vector<at::Tensor> outputs)
        : CapturedWork(std::move(outputs)), events_(std::move(events)), work_(std::move(work)) {}

    absl::Status Launch() override {
      events_->push_back("launch");
      const std::vector<at::Tensor> results = work_();
      for (std::size_t i = 0; i < results.size(); ++i) {
        std::memcpy(outputs()[i].data_ptr(), results[i].data_ptr(), results[i].nbytes());
      }
      return absl::OkStatus();
    }

   private:
    const std::shared_ptr<std::vector<std::string>> events_;
    const std::function<std::vector<at::Tensor>()> work_;
  };

  void DoQueued() {
    for (const auto& copy : std::exchange(queued_, {})) copy();
  }

  static std::string Name(Stream stream) { return stream == Stream::kCompute ? "compute" : "load"; }

  const std::string name_ = "recording:0";
  // Shared with the blocks, which may outlive the device.
  const std::shared_ptr<std::vector<std::string>> events_ =
      std::make_shared<std::vector<std::string>>();
  std::vector<std::function<void()>> queued_;
  int host_tensors_made_ = 0;
  bool fail_next_copy_ = false;
  bool fail_next_capture_ = false;
};

}  // namespace relight::model

#endif  // RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
