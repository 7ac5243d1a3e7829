#include "server/model/bound_weights.h"

#include <ATen/Functions.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/model/torch_error.h"
#include "server/model/torch_types.h"

namespace relight::model {
namespace {

constexpr std::size_t kDeviceAlignment = 256;

// Bytes from the first to past the last element.
std::size_t ExtentBytes(const WeightView& view) {
  std::int64_t last = 0;
  for (std::size_t i = 0; i < view.shape.size(); ++i) {
    if (view.shape[i] == 0) return 0;
    last += (view.shape[i] - 1) * view.stride[i];
  }
  return (static_cast<std::size_t>(last) + 1) * ItemSize(view.dtype);
}

std::optional<std::string> Mismatch(const ParameterSpec& spec, const WeightView& view) {
  const std::string name = Escape(view.name);
  if (view.shape != spec.shape || view.stride.size() != view.shape.size()) {
    return absl::StrCat("parameter ", name, ": checkpoint has shape ", ShapeString(view.shape),
                        ", the graph needs ", ShapeString(spec.shape));
  }
  const bool fits =
      spec.dtype == DType::kFloat32 ? IsFloatingPoint(view.dtype) : view.dtype == spec.dtype;
  if (!fits) {
    return absl::StrCat("parameter ", name, ": checkpoint has ", std::string(Name(view.dtype)),
                        ", the graph needs ", std::string(Name(spec.dtype)));
  }
  if (!ToScalarType(view.dtype)) {
    return absl::StrCat("parameter ", name, ": this LibTorch cannot compute with ",
                        std::string(Name(view.dtype)));
  }
  return std::nullopt;
}

absl::Status CheckWeights(absl::Span<const ParameterSpec> needed,
                          const std::vector<WeightView>& weights) {
  std::map<std::string, const WeightView*> offered;
  std::vector<std::string> problems;
  for (const WeightView& view : weights) {
    if (!offered.emplace(view.name, &view).second) {
      problems.push_back(absl::StrCat("parameter ", Escape(view.name), ": given twice"));
    }
  }
  for (const ParameterSpec& spec : needed) {
    const auto found = offered.find(spec.name);
    if (found == offered.end()) {
      if (spec.required) {
        problems.push_back(absl::StrCat("parameter ", Escape(spec.name), ": missing"));
      }
      continue;
    }
    if (auto problem = Mismatch(spec, *found->second)) problems.push_back(*std::move(problem));
    offered.erase(found);
  }
  for (const auto& [name, view] : offered) {
    problems.push_back(absl::StrCat("parameter ", Escape(name), ": unknown to the graph"));
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
}

// A run of host memory that views share, and where it goes in the device's block.
struct Piece {
  const std::byte* from = nullptr;
  std::size_t size_bytes = 0;
  std::size_t offset_bytes = 0;
};

struct DevicePlan {
  std::vector<Piece> pieces;  // By `from`.
  std::size_t total_bytes = 0;
};

// The piece that `view` is in.
template <typename Pieces>
auto& PieceOf(const WeightView& view, Pieces& pieces) {
  const auto after =
      std::upper_bound(pieces.begin(), pieces.end(), view.data,
                       [](const std::byte* data, const Piece& piece) { return data < piece.from; });
  return *std::prev(after);
}

// By the first of their views' names: wherever a checkpoint's file has them, the same weights come
// to lie at the same addresses, and what was captured with these stays good.
void PlaceInOrderOfNames(const std::vector<WeightView>& weights, DevicePlan& plan) {
  std::map<std::string_view, const WeightView*> by_name;
  for (const WeightView& view : weights) by_name.emplace(view.name, &view);
  std::set<const Piece*> placed;
  for (const auto& [name, view] : by_name) {
    if (ExtentBytes(*view) == 0) continue;
    Piece& piece = PieceOf(*view, plan.pieces);
    if (!placed.insert(&piece).second) continue;
    piece.offset_bytes = plan.total_bytes;
    const std::size_t aligned = (piece.size_bytes + kDeviceAlignment - 1) / kDeviceAlignment;
    plan.total_bytes += aligned * kDeviceAlignment;
  }
}

// Overlapping views become one piece, so that ties and strides survive the copy.
DevicePlan PlanDevice(const std::vector<WeightView>& weights) {
  DevicePlan plan;
  for (const WeightView& view : weights) {
    if (const std::size_t size_bytes = ExtentBytes(view); size_bytes > 0) {
      plan.pieces.push_back({view.data, size_bytes, 0});
    }
  }
  std::sort(plan.pieces.begin(), plan.pieces.end(),
            [](const Piece& a, const Piece& b) { return a.from < b.from; });
  std::vector<Piece> merged;
  for (const Piece& piece : plan.pieces) {
    if (!merged.empty() && piece.from < merged.back().from + merged.back().size_bytes) {
      const auto end = static_cast<std::size_t>(piece.from - merged.back().from) + piece.size_bytes;
      merged.back().size_bytes = std::max(merged.back().size_bytes, end);
    } else {
      merged.push_back(piece);
    }
  }
  plan.pieces = std::move(merged);
  PlaceInOrderOfNames(weights, plan);
  return plan;
}

// Copies weights with little of them queued at a time. A card's copies are made in the order in
// which they were asked for, whatever their streams: a request's inputs would wait for all that is
// queued, 20 ms for a GiB on an H100, and so wait for some 80 us.
class PacedCopies {
 public:
  explicit PacedCopies(Device& device) : device_(device) {}

  absl::Status Copy(std::byte* to, const std::byte* from, std::size_t size_bytes) {
    for (std::size_t at = 0; at < size_bytes;) {
      const std::size_t piece = std::min(kMostQueued - queued_, size_bytes - at);
      RELIGHT_RETURN_IF_ERROR(device_.CopyToDevice(to + at, from + at, piece, Stream::kLoad));
      at += piece;
      queued_ += piece;
      if (queued_ == kMostQueued) RELIGHT_RETURN_IF_ERROR(Finish());
    }
    return absl::OkStatus();
  }

  // Until all that was asked for is there.
  absl::Status Finish() {
    queued_ = 0;
    return device_.Synchronize(Stream::kLoad);
  }

 private:
  static constexpr std::size_t kMostQueued = std::size_t{4} << 20;

  Device& device_;
  std::size_t queued_ = 0;  // In bytes; less than kMostQueued between calls.
};

// Copies the views' memory to the device and points them there.
absl::StatusOr<std::shared_ptr<DeviceArena>> MoveToDevice(Device& device, DeviceArenas& arenas,
                                                          BindRequest& request) {
  const DevicePlan plan = PlanDevice(request.weights);
  RELIGHT_ASSIGN_OR_RETURN(std::shared_ptr<DeviceArena> arena,
                           arenas.Take(device, request.arena, plan.total_bytes));
  std::byte* const block = arena->memory.get();
  absl::Status copied;
  PacedCopies copies(device);
  for (const Piece& piece : plan.pieces) {
    copied = copies.Copy(block + piece.offset_bytes, piece.from, piece.size_bytes);
    if (!copied.ok()) break;
  }
  // Also after a failure: copies that are under way still read and write both blocks.
  const absl::Status synchronized = copies.Finish();
  RELIGHT_RETURN_IF_ERROR(copied);
  RELIGHT_RETURN_IF_ERROR(synchronized);
  for (WeightView& view : request.weights) {
    if (ExtentBytes(view) == 0) continue;
    const Piece& piece = PieceOf(view, plan.pieces);
    view.data = block + piece.offset_bytes + (view.data - piece.from);
  }
  request.keep_alive.reset();
  return arena;
}

at::Tensor Adopt(const WeightView& view, const at::Device& device) {
  const at::TensorOptions options = at::TensorOptions(*ToScalarType(view.dtype)).device(device);
  if (ExtentBytes(view) == 0) return at::empty(view.shape, options);
  // LibTorch has no view of const memory; nothing writes through this one.
  void* const data = const_cast<std::byte*>(view.data);
  return at::from_blob(data, view.shape, view.stride, options);
}

// What the checkpoint itself computes in: the type of its first floating point parameter.
std::optional<at::ScalarType> SavedType(absl::Span<const ParameterSpec> needed,
                                        const std::vector<WeightView>& weights) {
  std::map<std::string, DType> types;
  for (const WeightView& view : weights) {
    if (IsFloatingPoint(view.dtype)) types.emplace(view.name, view.dtype);
  }
  for (const bool buffers : {false, true}) {
    for (const ParameterSpec& spec : needed) {
      const auto found = types.find(spec.name);
      if (spec.buffer == buffers && found != types.end()) return ToScalarType(found->second);
    }
  }
  return std::nullopt;
}

std::map<std::string, at::Tensor> MakeTensors(const Device& device,
                                              const std::vector<WeightView>& weights,
                                              std::optional<at::ScalarType> compute_type,
                                              DeviceArena* arena) {
  using Key =
      std::tuple<const std::byte*, DType, std::vector<std::int64_t>, std::vector<std::int64_t>>;
  std::map<Key, at::Tensor> made;
  std::map<std::string, at::Tensor> tensors;
  for (const WeightView& view : weights) {
    at::Tensor& tensor = made[Key(view.data, view.dtype, view.shape, view.stride)];
    if (!tensor.defined()) {
      tensor = Adopt(view, device.torch_device());
      const bool converts = IsFloatingPoint(view.dtype) && tensor.scalar_type() != *compute_type;
      if (converts) tensor = tensor.to(*compute_type);
      if (converts && arena != nullptr) tensor = arena->derived.Keep(std::move(tensor));
    }
    tensors.emplace(view.name, tensor);
  }
  return tensors;
}

// Parameters that are shared are one tensor. Of those that a checkpoint may lack, it may have
// either name, or none.
absl::Status Share(absl::Span<const ParameterSpec> needed,
                   std::map<std::string, at::Tensor>& tensors) {
  for (const ParameterSpec& spec : needed) {
    if (spec.same_as.empty()) continue;
    at::Tensor& root = tensors[spec.same_as];
    at::Tensor& own = tensors[spec.name];
    if (!root.defined()) root = own;
    if (own.defined() && !own.is_same(root) && !at::equal(own, root)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "parameter ", Escape(spec.name), ": the graph shares it with ", Escape(spec.same_as),
          ", but the checkpoint has other values for it; take parameters_of out, or save both from "
          "one tensor"));
    }
    own = root;
  }
  std::erase_if(tensors, [](const auto& named) { return !named.second.defined(); });
  return absl::OkStatus();
}

absl::Status CheckComputable(const Device& device, std::optional<at::ScalarType> compute_type) {
  if (!compute_type) return absl::OkStatus();
  const bool narrow = *compute_type == at::kHalf && device.torch_device().is_cpu();
  const bool known = *compute_type == at::kFloat || *compute_type == at::kDouble ||
                     *compute_type == at::kBFloat16 || *compute_type == at::kHalf;
  if (known && !narrow) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the checkpoint's weights are ", at::toString(*compute_type), ", in which ",
                   device.name(), " does not compute; set precision: FP32 or BF16"));
}

}  // namespace

at::ScalarType ComputeType(config::Precision precision, at::ScalarType as_saved) {
  switch (precision) {
    case config::Precision::kFloat32:
      return at::kFloat;
    case config::Precision::kBFloat16:
      return at::kBFloat16;
    case config::Precision::kFloat16:
      return at::kHalf;
    case config::Precision::kAsSaved:
      break;
  }
  return as_saved;
}

absl::StatusOr<std::shared_ptr<DeviceArena>> DeviceArenas::Take(Device& device, int arena,
                                                                std::size_t size_bytes) {
  if (arena < 0 || static_cast<std::size_t>(arena) >= arenas_.size()) {
    return absl::InternalError(absl::StrCat("there is no arena ", arena));
  }
  std::shared_ptr<DeviceArena>& place = arenas_[static_cast<std::size_t>(arena)];
  const bool idle = place.use_count() == 1;
  if (idle && place->size_bytes >= size_bytes) {
    place->derived.Rewind();
    return place;
  }
  place.reset();  // Before the new one is made: both may not fit.
  auto made = std::make_shared<DeviceArena>();
  RELIGHT_ASSIGN_OR_RETURN(made->memory, device.AllocateDevice(size_bytes));
  made->size_bytes = size_bytes;
  place = made;
  return made;
}

absl::StatusOr<BoundWeights> BindWeights(Device& device, DeviceArenas& arenas,
                                         absl::Span<const ParameterSpec> needed,
                                         config::Precision precision, BindRequest request) {
  RELIGHT_RETURN_IF_ERROR(CheckWeights(needed, request.weights));
  BoundWeights bound;
  if (const auto saved = SavedType(needed, request.weights)) {
    bound.compute_type = ComputeType(precision, *saved);
  }
  RELIGHT_RETURN_IF_ERROR(CheckComputable(device, bound.compute_type));
  if (!device.shares_host_memory()) {
    RELIGHT_ASSIGN_OR_RETURN(bound.arena, MoveToDevice(device, arenas, request));
  }
  RELIGHT_RETURN_IF_ERROR(
      WithoutExceptions("binding the weights failed", absl::StatusCode::kInternal, [&] {
        const c10::InferenceMode inference;
        const std::unique_ptr<StreamScope> scope = device.Use(Stream::kLoad);
        bound.tensors = MakeTensors(device, request.weights, bound.compute_type, bound.arena.get());
        const absl::Status shared = Share(needed, bound.tensors);
        // Also after a refusal: what is under way reads the weights.
        const absl::Status done =
            device.shares_host_memory() ? absl::OkStatus() : device.Synchronize(Stream::kLoad);
        return shared.ok() ? done : shared;
      }));
  bound.host = std::move(request.keep_alive);
  return bound;
}

}  // namespace relight::model
