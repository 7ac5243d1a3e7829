#include "server/model/device.h"

#include <ATen/Functions.h>

#include <cstring>

#include "server/model/host_memory.h"

namespace relight::model {

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

std::unique_ptr<StreamScope> CpuDevice::Use(Stream) { return nullptr; }

}  // namespace relight::model
