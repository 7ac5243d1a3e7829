// A device with memory of its own, on the host, that writes down what is asked of it.
#ifndef RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
#define RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_

#include <ATen/Functions.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/device.h"

namespace relight::model {

// Copies happen only when their stream is synchronised, as late as a real device may do them; so
// whatever is freed or read too early shows as wrong answers, and under ASan as an error.
//
// Thread-compatible.
class RecordingDevice final : public Device {
 public:
  // What happened, in order: "allocate 256", "copy in 16 load", "synchronize load", "use compute",
  // "leave compute", "free 256".
  const std::vector<std::string>& events() const { return *events_; }
  void ClearEvents() { events_->clear(); }
  // The next CopyToDevice fails.
  void FailNextCopy() { fail_next_copy_ = true; }

  const std::string& name() const override { return name_; }
  at::Device torch_device() const override { return at::Device(at::kCPU); }
  bool shares_host_memory() const override { return false; }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(std::size_t size_bytes) override {
    return std::shared_ptr<std::byte>(new std::byte[size_bytes](),
                                      std::default_delete<std::byte[]>());
  }
  at::Tensor EmptyHost(at::IntArrayRef shape, at::ScalarType type) override {
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
    for (const auto& copy : std::exchange(queued_, {})) copy();
    return absl::OkStatus();
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

  static std::string Name(Stream stream) { return stream == Stream::kCompute ? "compute" : "load"; }

  const std::string name_ = "recording:0";
  // Shared with the blocks, which may outlive the device.
  const std::shared_ptr<std::vector<std::string>> events_ =
      std::make_shared<std::vector<std::string>>();
  std::vector<std::function<void()>> queued_;
  bool fail_next_copy_ = false;
};

}  // namespace relight::model

#endif  // RELIGHT_TESTS_SERVER_MODEL_RECORDING_DEVICE_H_
