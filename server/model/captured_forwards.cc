#include "server/model/captured_forwards.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/status_macros.h"

namespace relight::model {
namespace {

std::vector<std::int64_t> WithRows(at::IntArrayRef sizes, std::int64_t rows) {
  std::vector<std::int64_t> shape = sizes.vec();
  shape.front() = rows;
  return shape;
}

// Whether each of a batch's outputs has a row for each of its inputs'.
bool HaveRows(const std::vector<at::Tensor>& outputs, std::int64_t rows) {
  return std::all_of(outputs.begin(), outputs.end(), [rows](const at::Tensor& output) {
    return output.dim() > 0 && output.size(0) == rows;
  });
}

std::vector<at::Tensor> FirstRows(const std::vector<at::Tensor>& tensors, std::int64_t rows) {
  std::vector<at::Tensor> views;
  views.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) views.push_back(tensor.narrow(0, 0, rows));
  return views;
}

}  // namespace

std::vector<std::int64_t> BatchSizesToCapture(std::int64_t max_batch_size) {
  std::vector<std::int64_t> sizes;
  std::int64_t step = 1;
  for (std::int64_t size = 1; size < max_batch_size; size += step) {
    sizes.push_back(size);
    if (size == 8 * step) step *= 2;
  }
  if (max_batch_size > 0) sizes.push_back(max_batch_size);
  return sizes;
}

void CapturedForwards::Rebind(absl::Span<const at::Tensor> read) {
  std::vector<Place> places = PlacesOf(read);
  if (places == places_) return;
  Forget();
  places_ = std::move(places);
}

absl::StatusOr<bool> CapturedForwards::Capture(Device& device, const CaptureSettings& settings,
                                               absl::Span<const HostInput> inputs,
                                               const Computation& computation) {
  const std::vector<Forward>& known = lanes_.front().forwards;
  if (!known.empty() && Fits(known.back(), inputs)) return false;
  Forget();
  batched_ = settings.max_batch_size > 0;
  const auto lane_count =
      std::clamp<std::size_t>(static_cast<std::size_t>(device.forwards_at_once()), 1, kMostLanes);
  for (Lane& lane : absl::MakeSpan(lanes_).first(lane_count)) {
    absl::StatusOr<std::vector<Forward>> forwards =
        CaptureAll(device, lane.stream, settings.max_batch_size, inputs, computation);
    if (!forwards.ok()) {
      Forget();
      return forwards.status();
    }
    lane.forwards = *std::move(forwards);
  }
  return !known.empty();
}

std::optional<absl::StatusOr<std::vector<at::Tensor>>> CapturedForwards::Run(
    Device& device, absl::Span<const HostInput> inputs) {
  const std::optional<std::size_t> forward = Find(inputs);
  if (!forward) return std::nullopt;
  const std::size_t lane = EnterLane();
  const absl::Cleanup leave = [this, lane] { LeaveLane(lane); };
  return RunIn(device, lanes_[lane], *forward, inputs);
}

absl::StatusOr<std::vector<at::Tensor>> CapturedForwards::RunIn(
    Device& device, Lane& lane, std::size_t forward, absl::Span<const HostInput> inputs) {
  const Forward& run = lane.forwards[forward];
  std::vector<at::Tensor> from;
  from.reserve(inputs.size());
  for (const HostInput& input : inputs) from.push_back(PageLocked(device, input));
  std::vector<at::Tensor> to;
  for (const at::Tensor& output : run.work->outputs()) {
    const auto shape =
        batched_ ? WithRows(output.sizes(), inputs.front().tensor.size(0)) : output.sizes().vec();
    to.push_back(device.EmptyHost(shape, output.scalar_type()));
  }
  const absl::StatusOr<std::unique_ptr<Mark>> mark = Queue(device, lane, run, from, to);
  if (!mark.ok()) {
    // What was queued still works on both sides' memory.
    device.Synchronize(lane.stream).IgnoreError();
    return mark.status();
  }
  RELIGHT_RETURN_IF_ERROR((*mark)->Wait());
  return to;
}

void CapturedForwards::Forget() {
  for (Lane& lane : lanes_) lane.forwards.clear();
}

std::optional<std::size_t> CapturedForwards::Find(absl::Span<const HostInput> inputs) const {
  const std::vector<Forward>& forwards = lanes_.front().forwards;
  const auto forward =
      std::find_if(forwards.begin(), forwards.end(),
                   [&](const Forward& candidate) { return Fits(candidate, inputs); });
  if (forward == forwards.end()) return std::nullopt;
  return static_cast<std::size_t>(forward - forwards.begin());
}

std::size_t CapturedForwards::EnterLane() {
  MutexLock lock(mutex_);
  std::size_t least = 0;
  for (std::size_t lane = 1; lane < lanes_.size() && !lanes_[lane].forwards.empty(); ++lane) {
    if (under_way_[lane] < under_way_[least]) least = lane;
  }
  ++under_way_[least];
  return least;
}

void CapturedForwards::LeaveLane(std::size_t lane) {
  MutexLock lock(mutex_);
  --under_way_[lane];
}

std::vector<CapturedForwards::Place> CapturedForwards::PlacesOf(
    absl::Span<const at::Tensor> tensors) {
  std::vector<Place> places;
  places.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    places.push_back(
        {tensor.data_ptr(), tensor.scalar_type(), tensor.sizes().vec(), tensor.strides().vec()});
  }
  return places;
}

absl::StatusOr<std::vector<CapturedForwards::Forward>> CapturedForwards::CaptureAll(
    Device& device, Stream stream, std::int64_t max_batch_size, absl::Span<const HostInput> inputs,
    const Computation& computation) {
  const std::unique_ptr<StreamScope> scope = device.Use(stream);
  std::vector<at::Tensor> whole;
  for (const HostInput& input : inputs) {
    const auto shape = max_batch_size > 0 ? WithRows(input.tensor.sizes(), max_batch_size)
                                          : input.tensor.sizes().vec();
    whole.push_back(at::zeros(shape, input.tensor.options().device(device.torch_device())));
  }
  std::vector<std::int64_t> batch_sizes = BatchSizesToCapture(max_batch_size);
  if (batch_sizes.empty()) batch_sizes.push_back(0);  // All of it, whatever its dimensions mean.
  std::vector<Forward> forwards;
  // From the largest on: the others' scratch fits where its is.
  for (auto rows = batch_sizes.rbegin(); rows != batch_sizes.rend(); ++rows) {
    Forward forward{*rows > 0 ? FirstRows(whole, *rows) : whole, nullptr};
    const std::vector<at::Tensor> outputs = computation(forward.inputs);
    RELIGHT_RETURN_IF_ERROR(device.Synchronize(stream));
    // Its own rows could not be told from the filling: whoever looks at the answer shall see it.
    if (*rows > 0 && !HaveRows(outputs, *rows)) return std::vector<Forward>();
    const CapturedWork* const beside = forwards.empty() ? nullptr : forwards.front().work.get();
    RELIGHT_ASSIGN_OR_RETURN(
        forward.work,
        device.Capture([computation, on_device = forward.inputs] { return computation(on_device); },
                       stream, beside));
    forwards.push_back(std::move(forward));
  }
  std::reverse(forwards.begin(), forwards.end());
  return forwards;
}

bool CapturedForwards::Fits(const Forward& forward, absl::Span<const HostInput> inputs) const {
  if (inputs.size() != forward.inputs.size()) return false;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const at::Tensor& given = inputs[i].tensor;
    const at::Tensor& taken = forward.inputs[i];
    if (given.scalar_type() != taken.scalar_type() || given.dim() != taken.dim()) return false;
    const std::size_t first = batched_ ? 1 : 0;
    if (given.sizes().slice(first) != taken.sizes().slice(first)) return false;
    if (!batched_) continue;
    // Of inputs with fewer rows than the first, rows behind their own would be computed on.
    const std::int64_t rows = given.size(0);
    if (rows == 0 || rows > taken.size(0) || rows != inputs.front().tensor.size(0)) return false;
  }
  return true;
}

absl::StatusOr<std::unique_ptr<Mark>> CapturedForwards::Queue(Device& device, Lane& lane,
                                                              const Forward& forward,
                                                              absl::Span<const at::Tensor> from,
                                                              absl::Span<const at::Tensor> to) {
  MutexLock lock(lane.queueing);
  for (std::size_t i = 0; i < from.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(device.CopyToDevice(forward.inputs[i].data_ptr(), from[i].data_ptr(),
                                                TensorBytes(from[i]), lane.stream));
  }
  RELIGHT_RETURN_IF_ERROR(forward.work->Launch());
  for (std::size_t i = 0; i < to.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(device.CopyToHost(
        to[i].data_ptr(), forward.work->outputs()[i].data_ptr(), TensorBytes(to[i]), lane.stream));
  }
  return device.SetMark(lane.stream);
}

}  // namespace relight::model
