#include "server/model/cuda_device.h"

#include <ATen/Functions.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/version.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "server/model/host_memory.h"
#include "server/model/torch_error.h"

// Before 2.1 LibTorch captures in the mode in which any thread's cudaMalloc breaks the capture.
#define RELIGHT_CAPTURES \
  (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 1))
#if RELIGHT_CAPTURES
#include <ATen/cuda/CUDAGraph.h>
#endif

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

class CudaMark final : public Mark {
 public:
  CudaMark(c10::DeviceIndex index, cudaEvent_t event) : index_(index), event_(event) {}
  ~CudaMark() override { cudaEventDestroy(event_); }
  CudaMark(const CudaMark&) = delete;
  CudaMark& operator=(const CudaMark&) = delete;

  // Looks for as long as waking a thread would take, then sleeps: a device that computes for long
  // should not cost the requests' threads a core.
  absl::Status Wait() override {
    constexpr std::chrono::microseconds kWakingTakes{100};
    const auto asleep_from = std::chrono::steady_clock::now() + kWakingTakes;
    while (std::chrono::steady_clock::now() < asleep_from) {
      const cudaError_t done = cudaEventQuery(event_);
      if (done != cudaErrorNotReady) return ToStatus(done, "cudaEventQuery");
      cudaGetLastError();
    }
    return OnDevice(index_,
                    [&] { return ToStatus(cudaEventSynchronize(event_), "cudaEventSynchronize"); });
  }

 private:
  const c10::DeviceIndex index_;
  const cudaEvent_t event_;
};

// A capture marks LibTorch's generator of random numbers and its allocator, and some releases
// refuse to launch a graph, or to give memory back, while they are marked. Held alone by who
// captures, forgets a graph or empties the allocator, and together by who launches: for
// milliseconds, in the first two loads of a model.
std::shared_mutex& Captures() {
  static std::shared_mutex captures;
  return captures;
}

#if RELIGHT_CAPTURES
// Where a graph's memory comes from; its name has moved between releases of LibTorch.
using GraphPool = decltype(std::declval<at::cuda::CUDAGraph&>().pool());

class CudaGraph final : public CapturedWork {
 public:
  // `queue` is what `stream` stands for.
  CudaGraph(Stream stream, c10::cuda::CUDAStream queue, std::unique_ptr<at::cuda::CUDAGraph> graph,
            std::vector<at::Tensor> outputs)
      : CapturedWork(stream, std::move(outputs)), queue_(queue), graph_(std::move(graph)) {}
  ~CudaGraph() override {
    const std::unique_lock<std::shared_mutex> lock(Captures());
    graph_.reset();
  }

  absl::Status Launch() override {
    return WithoutExceptions("launching a CUDA graph", absl::StatusCode::kUnavailable, [&] {
      const std::shared_lock<std::shared_mutex> lock(Captures());
      const c10::cuda::CUDAStreamGuard guard(queue_);
      graph_->replay();
      return absl::OkStatus();
    });
  }

  GraphPool pool() const { return graph_->pool(); }

 private:
  const c10::cuda::CUDAStream queue_;
  std::unique_ptr<at::cuda::CUDAGraph> graph_;
};
#endif

// Where works are captured that one stream will run, and where it runs them.
struct ComputeStream {
  explicit ComputeStream(c10::DeviceIndex index)
      : queue(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)),
        capture(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, index)) {}

  c10::cuda::CUDAStream queue;
  // Another one, since all that is queued on it is captured, whoever queues it; of high priority,
  // since kernels keep that of the stream that they were captured from; and not the one of the
  // other stream's works, since LibTorch gives cuBLAS scratch memory for each stream.
  c10::cuda::CUDAStream capture;
};

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(c10::DeviceIndex index)
      : index_(index),
        name_(absl::StrCat("cuda:", static_cast<int>(index))),
        compute_(index),
        second_compute_(index),
        load_(c10::cuda::getStreamFromPool(/*isHighPriority=*/false, index)) {}

  const std::string& name() const override { return name_; }
  at::Device torch_device() const override { return at::Device(at::kCUDA, index_); }
  bool shares_host_memory() const override { return false; }
  // One computes while others are put together and on their way: the host copies a batch of images
  // for longer than an H100 computes it.
  int forwards_at_once() const override { return 4; }
  bool can_capture() const override { return RELIGHT_CAPTURES && !capture_failed_; }

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

  absl::StatusOr<std::unique_ptr<Mark>> SetMark(Stream stream) override {
    return OnDevice(index_, [&]() -> absl::StatusOr<std::unique_ptr<Mark>> {
      cudaEvent_t event = nullptr;
      RELIGHT_RETURN_IF_ERROR(
          ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync),
                   "cudaEventCreate"));
      auto mark = std::make_unique<CudaMark>(index_, event);
      RELIGHT_RETURN_IF_ERROR(
          ToStatus(cudaEventRecord(event, Of(stream).stream()), "cudaEventRecord"));
      return mark;
    });
  }

  std::unique_ptr<StreamScope> Use(Stream stream) override {
    return std::make_unique<CudaStreamScope>(Of(stream));
  }

#if RELIGHT_CAPTURES
  absl::StatusOr<std::unique_ptr<CapturedWork>> Capture(
      std::function<std::vector<at::Tensor>()> work, Stream stream,
      const CapturedWork* beside) override {
    const std::unique_lock<std::shared_mutex> lock(Captures());
    return WithoutExceptions(
        absl::StrCat("capturing work for ", name_), absl::StatusCode::kInternal,
        [&]() -> absl::StatusOr<std::unique_ptr<CapturedWork>> {
          const ComputeStream& compute = ComputeOf(stream);
          const c10::cuda::CUDAStreamGuard guard(compute.capture);
          auto graph = std::make_unique<at::cuda::CUDAGraph>();
          const GraphPool pool =
              beside == nullptr ? GraphPool{0, 0} : static_cast<const CudaGraph*>(beside)->pool();
          // Only what this thread does counts: others may take memory meanwhile.
          graph->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
          std::vector<at::Tensor> outputs;
          try {
            outputs = work();
            graph->capture_end();
          } catch (...) {
            Abandon(std::move(graph));
            throw;
          }
          return std::make_unique<CudaGraph>(stream, compute.queue, std::move(graph),
                                             std::move(outputs));
        });
  }
#endif

 private:
#if RELIGHT_CAPTURES
  // LibTorch's allocator may go on looking at a graph whose capture failed, so it stays; and this
  // device captures nothing more. The work's own error says more than what is met here.
  void Abandon(std::unique_ptr<at::cuda::CUDAGraph> graph) {
    capture_failed_ = true;
    try {
      graph->capture_end();
    } catch (const std::exception&) {
      cudaGetLastError();
    }
    static_cast<void>(graph.release());
  }
#endif

  const ComputeStream& ComputeOf(Stream stream) const {
    return stream == Stream::kSecondCompute ? second_compute_ : compute_;
  }
  const c10::cuda::CUDAStream& Of(Stream stream) const {
    return stream == Stream::kLoad ? load_ : ComputeOf(stream).queue;
  }

  absl::Status AllocateOnIt(std::size_t size_bytes, void*& memory) const {
    std::size_t free_bytes = 0;
    std::size_t total_bytes = 0;
    RELIGHT_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
    if (size_bytes > free_bytes) {
      // What LibTorch keeps for forwards to come.
      const std::unique_lock<std::shared_mutex> lock(Captures());
      c10::cuda::CUDACachingAllocator::emptyCache();
      RELIGHT_RETURN_IF_ERROR(
          ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
    }
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
  const ComputeStream compute_;
  const ComputeStream second_compute_;
  const c10::cuda::CUDAStream load_;
  std::atomic<bool> capture_failed_{false};
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
