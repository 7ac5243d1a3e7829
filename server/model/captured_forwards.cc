#include "server/model/captured_forwards.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <utility>

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
  forwards_.clear();
  places_ = std::move(places);
}

absl::StatusOr<bool> CapturedForwards::Capture(Device& device, const CaptureSettings& settings,
                                               absl::Span<const HostInput> inputs,
                                               const Computation& computation) {
  if (!forwards_.empty() && Fits(forwards_.back(), inputs)) return false;
  forwards_.clear();
  batched_ = settings.max_batch_size > 0;
  RELIGHT_ASSIGN_OR_RETURN(forwards_,
                           CaptureAll(device, settings.max_batch_size, inputs, computation));
  return !forwards_.empty();
}

std::optional<absl::StatusOr<std::vector<at::Tensor>>> CapturedForwards::Run(
    Device& device, absl::Span<const HostInput> inputs) {
  const auto forward =
      std::find_if(forwards_.begin(), forwards_.end(),
                   [&](const Forward& candidate) { return Fits(candidate, inputs); });
  if (forward == forwards_.end()) return std::nullopt;
  std::vector<at::Tensor> from;
  from.reserve(inputs.size());
  for (const HostInput& input : inputs) from.push_back(PageLocked(device, input));
  std::vector<at::Tensor> to;
  for (const at::Tensor& output : forward->work->outputs()) {
    const auto shape =
        batched_ ? WithRows(output.sizes(), inputs.front().tensor.size(0)) : output.sizes().vec();
    to.push_back(device.EmptyHost(shape, output.scalar_type()));
  }
  const absl::StatusOr<std::unique_ptr<Mark>> mark = Queue(device, *forward, from, to);
  if (!mark.ok()) {
    // What was queued still works on both sides' memory.
    device.Synchronize(Stream::kCompute).IgnoreError();
    return mark.status();
  }
  if (absl::Status status = (*mark)->Wait(); !status.ok()) return status;
  return to;
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
    Device& device, std::int64_t max_batch_size, absl::Span<const HostInput> inputs,
    const Computation& computation) {
  const std::unique_ptr<StreamScope> scope = device.Use(Stream::kCompute);
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
    RELIGHT_RETURN_IF_ERROR(device.Synchronize(Stream::kCompute));
    // Its own rows could not be told from the filling: whoever looks at the answer shall see it.
    if (*rows > 0 && !HaveRows(outputs, *rows)) return std::vector<Forward>();
    const CapturedWork* const beside = forwards.empty() ? nullptr : forwards.front().work.get();
    RELIGHT_ASSIGN_OR_RETURN(
        forward.work,
        device.Capture([computation, on_device = forward.inputs] { return computation(on_device); },
                       beside));
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
    const bool rows_fit = !batched_ || (given.size(0) > 0 && given.size(0) <= taken.size(0));
    if (!rows_fit) return false;
  }
  return true;
}

absl::StatusOr<std::unique_ptr<Mark>> CapturedForwards::Queue(Device& device, Forward& forward,
                                                              absl::Span<const at::Tensor> from,
                                                              absl::Span<const at::Tensor> to) {
  MutexLock lock(queueing_);
  for (std::size_t i = 0; i < from.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(device.CopyToDevice(forward.inputs[i].data_ptr(), from[i].data_ptr(),
                                                TensorBytes(from[i]), Stream::kCompute));
  }
  RELIGHT_RETURN_IF_ERROR(forward.work->Launch());
  for (std::size_t i = 0; i < to.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(device.CopyToHost(to[i].data_ptr(),
                                              forward.work->outputs()[i].data_ptr(),
                                              TensorBytes(to[i]), Stream::kCompute));
  }
  return device.SetMark();
}

}  // namespace relight::model
