#include "server/model/device.h"

#include <ATen/Functions.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/model/host_memory.h"

namespace relight::model {
namespace {

// The host has done everything by the time it could be marked.
class NothingToWaitFor final : public Mark {
 public:
  absl::Status Wait() override { return absl::OkStatus(); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<CapturedWork>> Device::Capture(
    std::function<std::vector<at::Tensor>()> /*work*/, Stream /*stream*/,
    const CapturedWork* /*beside*/) {
  return absl::UnimplementedError(absl::StrCat(name(), " captures no work"));
}

const std::string& CpuDevice::name() const {
  static const std::string name = "cpu";
  return name;
}

at::Device CpuDevice::torch_device() const { return at::Device(at::kCPU); }

absl::StatusOr<std::shared_ptr<std::byte>> CpuDevice::AllocateHost(std::size_t size_bytes) {
  return AllocateHostMemory(size_bytes);
}

at::Tensor CpuDevice::EmptyHost(at::IntArrayRef shape, at::ScalarType type) {
  return at::empty(shape, at::TensorOptions(type));
}

absl::StatusOr<std::shared_ptr<std::byte>> CpuDevice::AllocateDevice(std::size_t size_bytes) {
  return AllocateHostMemory(size_bytes);
}

absl::Status CpuDevice::CopyToDevice(void* to, const void* from, std::size_t size_bytes, Stream) {
  std::memcpy(to, from, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyToHost(void* to, const void* from, std::size_t size_bytes, Stream) {
  std::memcpy(to, from, size_bytes);
  return absl::OkStatus();
}

absl::Status CpuDevice::Synchronize(Stream) { return absl::OkStatus(); }

absl::StatusOr<std::unique_ptr<Mark>> CpuDevice::SetMark(Stream /*stream*/) {
  return std::make_unique<NothingToWaitFor>();
}

std::unique_ptr<StreamScope> CpuDevice::Use(Stream) { return nullptr; }

}  // namespace relight::model
