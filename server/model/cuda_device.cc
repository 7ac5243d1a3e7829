#include "server/model/cuda_device.h"

#include <ATen/Functions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/model/host_memory.h"
#include "server/model/torch_error.h"

namespace relight::model {
namespace {

// Errors of earlier asynchronous work surface in later calls: the message says which call saw it.
absl::Status ToStatus(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return absl::OkStatus();
  cudaGetLastError();  // Leaves nothing behind for LibTorch to trip over.
  const std::string message = absl::StrCat(call, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::UnavailableError(message);
}

// Runs `body` with device `index` as the current one; LibTorch's guard may throw.
template <typename Body>
auto OnDevice(c10::DeviceIndex index, Body&& body) -> decltype(body()) {
  return WithoutExceptions(absl::StrCat("using cuda:", static_cast<int>(index)),
                           absl::StatusCode::kUnavailable, [&] {
                             const c10::cuda::CUDAGuard guard(index);
                             return body();
                           });
}

class CudaStreamScope final : public StreamScope {
 public:
  explicit CudaStreamScope(c10::cuda::CUDAStream stream) : guard_(stream) {}

 private:
  c10::cuda::CUDAStreamGuard guard_;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(c10::DeviceIndex index)
      : index_(index),
        name_(absl::StrCat("cuda:", static_cast<int>(index))),
        compute_(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)),
        load_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index)) {}

  const std::string& name() const override { return name_; }
  at::Device torch_device() const override { return at::Device(at::kCUDA, index_); }
  bool shares_host_memory() const override { return false; }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateHost(std::size_t size_bytes) override {
    RELIGHT_RETURN_IF_ERROR(CheckFits(size_bytes));
    void* memory = nullptr;
    // Portable: page-locked for every device, since a host block may outlive a device's choice.
    RELIGHT_RETURN_IF_ERROR(OnDevice(index_, [&] {
      return ToStatus(
          cudaHostAlloc(&memory, std::max<std::size_t>(size_bytes, 1), cudaHostAllocPortable),
          "cudaHostAlloc");
    }));
    std::memset(memory, 0, size_bytes);
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                      [](std::byte* block) { cudaFreeHost(block); });
  }

  at::Tensor EmptyHost(at::IntArrayRef shape, at::ScalarType type) override {
    return at::empty(shape, at::TensorOptions(type).pinned_memory(true));
  }

  absl::StatusOr<std::shared_ptr<std::byte>> AllocateDevice(std::size_t size_bytes) override {
    void* memory = nullptr;
    RELIGHT_RETURN_IF_ERROR(
        OnDevice(index_, [&]() -> absl::Status { return AllocateOnIt(size_bytes, memory); }));
    return std::shared_ptr<std::byte>(
        static_cast<std::byte*>(memory), [index = index_](std::byte* block) {
          OnDevice(index, [block] { return ToStatus(cudaFree(block), "cudaFree"); }).IgnoreError();
        });
  }

  absl::Status CopyToDevice(void* to, const void* from, std::size_t size_bytes,
                            Stream stream) override {
    return Copy(to, from, size_bytes, cudaMemcpyHostToDevice, stream);
  }

  absl::Status CopyToHost(void* to, const void* from, std::size_t size_bytes,
                          Stream stream) override {
    return Copy(to, from, size_bytes, cudaMemcpyDeviceToHost, stream);
  }

  absl::Status Synchronize(Stream stream) override {
    return OnDevice(index_, [&] {
      return ToStatus(cudaStreamSynchronize(Of(stream).stream()), "cudaStreamSynchronize");
    });
  }

  std::unique_ptr<StreamScope> Use(Stream stream) override {
    return std::make_unique<CudaStreamScope>(Of(stream));
  }

 private:
  const c10::cuda::CUDAStream& Of(Stream stream) const {
    return stream == Stream::kCompute ? compute_ : load_;
  }

  absl::Status AllocateOnIt(std::size_t size_bytes, void*& memory) const {
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    RELIGHT_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
    if (size_bytes > free_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("weights need ", size_bytes, " bytes on ", name_, ", but only ", free_bytes,
                       " of ", total_bytes, " are free; free memory there, or set arenas: 1"));
    }
    return ToStatus(cudaMalloc(&memory, std::max<std::size_t>(size_bytes, 1)), "cudaMalloc");
  }

  absl::Status Copy(void* to, const void* from, std::size_t size_bytes, cudaMemcpyKind kind,
                    Stream stream) {
    if (size_bytes == 0) return absl::OkStatus();
    return OnDevice(index_, [&] {
      return ToStatus(cudaMemcpyAsync(to, from, size_bytes, kind, Of(stream).stream()),
                      "cudaMemcpyAsync");
    });
  }

  const c10::DeviceIndex index_;
  const std::string name_;
  const c10::cuda::CUDAStream compute_;
  const c10::cuda::CUDAStream load_;
};

}  // namespace

int CountCudaDevices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

absl::StatusOr<std::shared_ptr<Device>> MakeCudaDevice(int index) {
  const int count = CountCudaDevices();
  if (index < 0 || index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device cuda:", index, " does not exist: this machine has ", count,
                     " CUDA device(s); set device to \"cpu\", \"auto\" or a lower number"));
  }
  return WithoutExceptions(
      absl::StrCat("cannot use cuda:", index), absl::StatusCode::kFailedPrecondition,
      [index]() -> absl::StatusOr<std::shared_ptr<Device>> {
        return std::make_shared<CudaDevice>(static_cast<c10::DeviceIndex>(index));
      });
}

}  // namespace relight::model
