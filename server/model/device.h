// The one interface through which all work on a device goes: its memory, copies and streams. A
// recording implementation lets tests check order and lifetimes without an accelerator.
#ifndef RELIGHT_SERVER_MODEL_DEVICE_H_
#define RELIGHT_SERVER_MODEL_DEVICE_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace relight::model {

// Work on one stream runs in order; the two run beside each other.
enum class Stream {
  kCompute,  // Requests.
  kLoad,     // Weights on their way in; gives way to requests.
};

// While it lives, LibTorch's work from this thread goes to one stream of one device.
class StreamScope {
 public:
  virtual ~StreamScope() = default;
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

  virtual std::unique_ptr<StreamScope> Use(Stream stream) = 0;
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
  std::unique_ptr<StreamScope> Use(Stream stream) override;
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_DEVICE_H_
