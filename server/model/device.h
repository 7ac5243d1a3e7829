// The one interface through which all work on a device goes: its memory, copies and streams. A
// recording implementation lets tests check order and lifetimes without an accelerator.
#ifndef RELIGHT_SERVER_MODEL_DEVICE_H_
#define RELIGHT_SERVER_MODEL_DEVICE_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::model {

// Work on one stream runs in order; streams run beside each other.
enum class Stream {
  kCompute,        // Requests, and all that is not captured.
  kSecondCompute,  // Requests beside those: copies and the ends of kernels pass under the others'.
  kLoad,           // Weights on their way in; gives way to requests.
};

// While it lives, LibTorch's work from this thread goes to one stream of one device.
class StreamScope {
 public:
  virtual ~StreamScope() = default;
};

// A point in a stream's work. Not thread-safe.
class Mark {
 public:
  virtual ~Mark() = default;

  // Returns when everything that was queued before the mark is done.
  virtual absl::Status Wait() = 0;
};

// Work that was captured once (a CUDA graph) and is queued as a whole, at the cost of one call. It
// reads what lies at the addresses that it was captured with.
//
// Thread-compatible.
class CapturedWork {
 public:
  CapturedWork(Stream stream, std::vector<at::Tensor> outputs)
      : stream_(stream), outputs_(std::move(outputs)) {}
  virtual ~CapturedWork() = default;

  // On the device; each Launch fills them anew.
  const std::vector<at::Tensor>& outputs() const { return outputs_; }
  // Where Launch queues it.
  Stream stream() const { return stream_; }
  // Queues the work on the stream that it was captured for. Nowhere else: what works captured for
  // one stream use for scratch may be the same memory, and the stream keeps them apart.
  virtual absl::Status Launch() = 0;

 private:
  const Stream stream_;
  const std::vector<at::Tensor> outputs_;
};

// Thread-safe. Blocks keep their device alive.
class Device {
 public:
  virtual ~Device() = default;

  // "cpu", "cuda:0".
  virtual const std::string& name() const = 0;
  virtual at::Device torch_device() const = 0;
  // Whether a graph reads host memory where it lies. If so, nothing below AllocateHost is called.
  virtual bool shares_host_memory() const = 0;
  // How many forwards keep the device busy; more at a time only make each of them longer. 0: as
  // many as there are compute threads.
  virtual int forwards_at_once() const { return 0; }
  // Whether there is Capture.
  virtual bool can_capture() const { return false; }

  // Memory that the device reads from fast; GraphFactory::AllocateHost has the promises.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(std::size_t size_bytes) = 0;

  // An uninitialised tensor in such memory, for one forward's inputs and outputs.
  virtual at::Tensor EmptyHost(at::IntArrayRef shape, at::ScalarType type) = 0;

  // Memory on the device, at least 256-byte aligned. RESOURCE_EXHAUSTED with both numbers.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> AllocateDevice(std::size_t size_bytes) = 0;

  // Queues a copy. Both blocks must live until Synchronize(stream) has returned.
  virtual absl::Status CopyToDevice(void* to, const void* from, std::size_t size_bytes,
                                    Stream stream) = 0;
  virtual absl::Status CopyToHost(void* to, const void* from, std::size_t size_bytes,
                                  Stream stream) = 0;
  // Returns when everything queued on `stream` is done.
  virtual absl::Status Synchronize(Stream stream) = 0;
  // After all that is queued on `stream` now.
  virtual absl::StatusOr<std::unique_ptr<Mark>> SetMark(Stream stream) = 0;

  virtual std::unique_ptr<StreamScope> Use(Stream stream) = 0;

  // Captures what `work` queues from this thread, without computing it, to be launched on `stream`,
  // one of those for requests; what it returns are the outputs. `work` must have run once on this
  // thread, so that nothing is set up in it, and must not wait for the device. The device memory
  // that it takes stays the captured work's, or is what `beside`, which if it is not null was
  // captured for the same stream, needs only while it computes. UNIMPLEMENTED where the device
  // cannot; what else LibTorch says is wrong is INTERNAL or RESOURCE_EXHAUSTED.
  virtual absl::StatusOr<std::unique_ptr<CapturedWork>> Capture(
      std::function<std::vector<at::Tensor>()> work, Stream stream, const CapturedWork* beside);
};

// The host itself: weights are adopted where they lie.
class CpuDevice final : public Device {
 public:
  const std::string& name() const override;
  at::Device torch_device() const override;
  bool shares_host_memory() const override { return true; }
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(std::size_t size_bytes) override;
  at::Tensor EmptyHost(at::IntArrayRef shape, at::ScalarType type) override;
  absl::StatusOr<std::shared_ptr<std::byte>> AllocateDevice(std::size_t size_bytes) override;
  absl::Status CopyToDevice(void* to, const void* from, std::size_t size_bytes,
                            Stream stream) override;
  absl::Status CopyToHost(void* to, const void* from, std::size_t size_bytes,
                          Stream stream) override;
  absl::Status Synchronize(Stream stream) override;
  absl::StatusOr<std::unique_ptr<Mark>> SetMark(Stream stream) override;
  std::unique_ptr<StreamScope> Use(Stream stream) override;
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_DEVICE_H_
