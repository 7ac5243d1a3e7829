// Forwards that are captured once and then queued as a whole, where shapes repeat.
#ifndef RELIGHT_SERVER_MODEL_CAPTURED_FORWARDS_H_
#define RELIGHT_SERVER_MODEL_CAPTURED_FORWARDS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "server/model/device.h"
#include "server/model/host_input.h"

namespace relight::model {

// Which forwards are captured.
struct CaptureSettings {
  bool enabled = false;
  // The rows of a batch: 0 where requests are never put together, and a shape is captured as it is.
  std::int64_t max_batch_size = 0;
};

// Up to eight each number of rows, from there on four for each doubling, so that less than a fifth
// of a batch is filling. Ascending; the last is `max_batch_size`.
std::vector<std::int64_t> BatchSizesToCapture(std::int64_t max_batch_size);

// Belongs to one block of weights: the captured works read that block's addresses. The weights may
// change, and what is derived from them, as long as they stay where they are.
//
// Thread-safe, but for Rebind and Capture, which are called while nothing computes with the block.
class CapturedForwards {
 public:
  // Of inputs on the device. Owns what it needs but the weights' memory. May throw.
  using Computation = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

  // `read` is what forwards will read besides inputs: forgets those that were captured while it was
  // other tensors, or these lay elsewhere.
  void Rebind(absl::Span<const at::Tensor> read);

  // Captures `computation` of inputs with the shapes and types of `inputs`, and, where batches are
  // put together, as many rows as BatchSizesToCapture says; does nothing where that was done
  // before. Whether it captured anything. Throws what LibTorch throws. REQUIRES: Rebind was told
  // what `computation` reads.
  absl::StatusOr<bool> Capture(Device& device, const CaptureSettings& settings,
                               absl::Span<const HostInput> inputs, const Computation& computation);

  // The outputs for `inputs`, in page-locked memory; nullopt where no captured forward fits them.
  // A batch may be computed with rows behind its own that nobody asked for.
  std::optional<absl::StatusOr<std::vector<at::Tensor>>> Run(Device& device,
                                                             absl::Span<const HostInput> inputs);

 private:
  // What must be the same for captured work to be good.
  struct Place {
    const void* data = nullptr;
    at::ScalarType type = at::kFloat;
    std::vector<std::int64_t> sizes, strides;
    bool operator==(const Place&) const = default;
  };
  struct Forward {
    std::vector<at::Tensor> inputs;  // On the device: the first rows of the largest forward's.
    std::unique_ptr<CapturedWork> work;
  };

  // All forwards, for one stream. They share their inputs' memory and scratch: what is queued for
  // one is not mixed with what is queued for another.
  struct Lane {
    Stream stream;
    std::vector<Forward> forwards = {};  // By rows, ascending. Constant between two captures.
    Mutex queueing = {};
  };
  static constexpr std::size_t kMostLanes = 2;

  static std::vector<Place> PlacesOf(absl::Span<const at::Tensor> tensors);
  static absl::StatusOr<std::vector<Forward>> CaptureAll(Device& device, Stream stream,
                                                         std::int64_t max_batch_size,
                                                         absl::Span<const HostInput> inputs,
                                                         const Computation& computation);
  void Forget();
  // Which of a lane's forwards takes `inputs`.
  std::optional<std::size_t> Find(absl::Span<const HostInput> inputs) const;
  // Whether `inputs` are what `forward` takes; of a batch, as many rows or fewer.
  bool Fits(const Forward& forward, absl::Span<const HostInput> inputs) const;
  absl::StatusOr<std::vector<at::Tensor>> RunIn(Device& device, Lane& lane, std::size_t forward,
                                                absl::Span<const HostInput> inputs);
  // Queues the forward between the copies of its inputs and outputs.
  static absl::StatusOr<std::unique_ptr<Mark>> Queue(Device& device, Lane& lane,
                                                     const Forward& forward,
                                                     absl::Span<const at::Tensor> from,
                                                     absl::Span<const at::Tensor> to);
  // The one with the fewest forwards under way, which then has one more.
  std::size_t EnterLane();
  void LeaveLane(std::size_t lane);

  // Constant between two captures. Lanes without forwards are not used.
  bool batched_ = false;
  std::vector<Place> places_;
  std::array<Lane, kMostLanes> lanes_ = {{{Stream::kCompute}, {Stream::kSecondCompute}}};
  Mutex mutex_;
  std::array<int, kMostLanes> under_way_ ABSL_GUARDED_BY(mutex_) = {};
};

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_CAPTURED_FORWARDS_H_
