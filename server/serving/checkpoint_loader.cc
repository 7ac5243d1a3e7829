#include "server/serving/checkpoint_loader.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/exception_fence.h"
#include "base/status_macros.h"
#include "server/config/acceptance.h"
#include "server/network/parameters.h"
#include "server/serving/request_path.h"
#include "storage/error.h"

namespace relight::serving {
namespace {

// Why a status that is not the storage layer's own ended a load.
Verdict ClassifyOther(const absl::Status& status) {
  switch (status.code()) {
    // Memory, devices, I/O, and loads that are no longer wanted.
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:
      return Verdict::kTransient;
    default:
      return Verdict::kRefused;
  }
}

Verdict Classify(const absl::Status& status) {
  if (storage::MayBeTorn(status)) return Verdict::kTorn;
  if (storage::GetErrorCode(status).has_value()) {
    return storage::IsTransient(status) ? Verdict::kTransient : Verdict::kRefused;
  }
  return ClassifyOther(status);
}

// One load in the making; each step is a phase.
class Load {
 public:
  Load(const LoadOrder& order, const LoadTools& tools) : order_(order), tools_(tools) {}

  LoadResult Run() {
    absl::Status status = Steps();
    if (status.ok()) {
      if (!result_.loaded.has_value()) result_.verdict = Verdict::kUnchanged;
    } else {
      Fail(std::move(status));
    }
    return std::move(result_);
  }

 private:
  absl::Status Steps() {
    RELIGHT_RETURN_IF_ERROR(Phase("open", [this] { return Open(); }));
    if (tools_.scratch) {
      RELIGHT_RETURN_IF_ERROR(Phase("rehearse", [this] { return Rehearse(); }));
      if (order_.unchanged == loaded_.digest) return absl::OkStatus();
    }
    RELIGHT_RETURN_IF_ERROR(Phase("read", [this] { return Read(); }));
    // After a rehearsal the version with these weights is gone already.
    if (!tools_.scratch && order_.unchanged == loaded_.digest) return absl::OkStatus();
    RELIGHT_RETURN_IF_ERROR(CheckValues());
    RELIGHT_RETURN_IF_ERROR(Phase("bind", [this] { return Bind(); }));
    RELIGHT_RETURN_IF_ERROR(Phase("warm_up", [this] { return WarmUp(); }));
    if (tools_.accept) {
      RELIGHT_RETURN_IF_ERROR(Phase("accept", [this] { return tools_.accept(*loaded_.served); }));
    }
    result_.verdict = Verdict::kServed;
    result_.loaded = std::move(loaded_);
    return absl::OkStatus();
  }

  template <typename Step>
  absl::Status Phase(const char* name, Step step) {
    const auto start = std::chrono::steady_clock::now();
    absl::Status status = step();
    result_.phases.emplace_back(name, absl::FromChrono(std::chrono::steady_clock::now() - start));
    return status;
  }

  void Fail(absl::Status status) {
    if (result_.verdict != Verdict::kUnsettled) {
      result_.verdict = Classify(status);
      // Someone writes to it: whatever was wrong with it need not stay wrong.
      const bool changed =
          loaded_.checkpoint != nullptr && !loaded_.checkpoint->CheckUnchanged().ok();
      if (changed) result_.verdict = Verdict::kTorn;
    }
    result_.status = std::move(status);
  }

  absl::Status Open() {
    RELIGHT_ASSIGN_OR_RETURN(
        storage::Checkpoint checkpoint,
        storage::Checkpoint::Open(order_.path, config::ReadOptionsOf(tools_.config.checkpoints)));
    result_.identity = checkpoint.identity();
    loaded_.checkpoint = std::make_shared<const storage::Checkpoint>(std::move(checkpoint));
    const bool settled = order_.settled && result_.identity == order_.listed;
    if (loaded_.checkpoint->summary().crc_absent && !settled) {
      result_.verdict = Verdict::kUnsettled;
      return absl::UnavailableError(
          absl::StrCat("has no checksums and was written less than ",
                       absl::FormatDuration(tools_.config.checkpoints.settle_time),
                       " ago; waiting until it has been still for that long"));
    }
    RELIGHT_ASSIGN_OR_RETURN(
        config::WeightsComparison found,
        config::CompareWeights(*loaded_.checkpoint, tools_.config.checkpoints, Parameters()));
    RELIGHT_RETURN_IF_ERROR(ToStatus(found.mismatch));
    loaded_.state_dict = std::move(found.state_dict);
    loaded_.left_aside = std::move(found.left_aside);
    RELIGHT_ASSIGN_OR_RETURN(
        loaded_.plan, config::PlanFor(*loaded_.checkpoint, loaded_.state_dict, Parameters()));
    return absl::OkStatus();
  }

  // Whatever reading and checking could object to, without the block.
  absl::Status Rehearse() {
    const auto between_chunks = [this](std::uint64_t) {
      return tools_.hooks.between_chunks ? tools_.hooks.between_chunks() : absl::OkStatus();
    };
    RELIGHT_ASSIGN_OR_RETURN(storage::ExaminedWeights examined,
                             storage::ExamineWeights(*loaded_.checkpoint, loaded_.plan,
                                                     {tools_.scratch, between_chunks}));
    Keep(std::move(examined));
    return CheckValues();
  }

  absl::Status Read() {
    RELIGHT_ASSIGN_OR_RETURN(lease_, tools_.acquire(loaded_.plan.total_bytes));
    loaded_.lease = lease_;
    RELIGHT_ASSIGN_OR_RETURN(
        storage::ExaminedWeights examined,
        storage::LoadWeights(*loaded_.checkpoint, loaded_.plan, Block(), tools_.hooks));
    Keep(std::move(examined));
    return absl::OkStatus();
  }

  void Keep(storage::ExaminedWeights examined) {
    loaded_.digest = examined.digest;
    non_finite_ = std::move(examined.non_finite);
  }

  absl::Status CheckValues() const {
    return config::CheckValues(tools_.config, Parameters(), loaded_.plan, non_finite_);
  }

  absl::Status Bind() {
    model::BindRequest request;
    request.keep_alive = lease_;
    request.arena = lease_->index();
    for (const storage::WeightTensor& tensor : loaded_.plan.tensors) {
      request.weights.push_back({tensor.key, tensor.dtype, tensor.shape, tensor.stride,
                                 Block().data() + tensor.offset_bytes});
    }
    RELIGHT_ASSIGN_OR_RETURN(std::unique_ptr<model::BoundModel> model,
                             tools_.graph.Bind(std::move(request)));
    auto served = std::make_shared<ServedVersion>();
    served->version = order_.version;
    served->generation = order_.generation;
    served->weights_digest = std::make_shared<const std::string>(loaded_.digest.ToHex());
    served->model = std::move(model);
    served->counters = order_.counters;
    loaded_.served = std::move(served);
    return absl::OkStatus();
  }

  absl::Status WarmUp() {
    for (const std::int64_t batch_size : WarmUpSizes()) {
      RELIGHT_RETURN_IF_ERROR(tools_.warm_up(*loaded_.served, batch_size));
    }
    return absl::OkStatus();
  }

  // What a run of a described network prepares depends on shapes, and stays from version to
  // version. One run is left, to see that these weights compute. A TorchScript graph plans anew for
  // each.
  std::vector<std::int64_t> WarmUpSizes() const {
    const std::vector<std::int64_t>& sizes = tools_.config.warm_up.batch_sizes;
    const bool stays_warm = std::holds_alternative<network::Network>(tools_.config.graph);
    if (!order_.graph_is_warm || !stays_warm || sizes.empty()) return sizes;
    return {*std::min_element(sizes.begin(), sizes.end())};
  }

  const std::vector<ParameterSpec>& Parameters() const { return tools_.graph.parameters(); }
  absl::Span<std::byte> Block() const { return lease_->bytes().first(loaded_.plan.total_bytes); }

  const LoadOrder& order_;
  const LoadTools& tools_;
  std::shared_ptr<Arena::Lease> lease_;
  std::vector<storage::NonFinite> non_finite_;
  LoadedCheckpoint loaded_;
  LoadResult result_;
};

}  // namespace

LoadResult LoadCheckpoint(const LoadOrder& order, const LoadTools& tools) {
  absl::StatusOr<LoadResult> result = WithinFence(
      "the load", [&]() -> absl::StatusOr<LoadResult> { return Load(order, tools).Run(); });
  if (result.ok()) return *std::move(result);
  LoadResult failed;
  failed.verdict = Classify(result.status());
  failed.status = result.status();
  return failed;
}

}  // namespace relight::serving
