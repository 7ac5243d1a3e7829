#include "server/rpc/inference_messages.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/time/time.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "server/rpc/concat.h"
#include "server/rpc/status_text.h"

namespace relight::rpc {
namespace {

inference::DataType DataTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return inference::TYPE_BOOL;
    case DType::kUInt8:
      return inference::TYPE_UINT8;
    case DType::kUInt16:
      return inference::TYPE_UINT16;
    case DType::kUInt32:
      return inference::TYPE_UINT32;
    case DType::kUInt64:
      return inference::TYPE_UINT64;
    case DType::kInt8:
      return inference::TYPE_INT8;
    case DType::kInt16:
      return inference::TYPE_INT16;
    case DType::kInt32:
      return inference::TYPE_INT32;
    case DType::kInt64:
      return inference::TYPE_INT64;
    case DType::kFloat16:
      return inference::TYPE_FP16;
    case DType::kBFloat16:
      return inference::TYPE_BF16;
    case DType::kFloat32:
      return inference::TYPE_FP32;
    case DType::kFloat64:
      return inference::TYPE_FP64;
    default:
      return inference::TYPE_INVALID;
  }
}

void Describe(const TensorSpec& spec, inference::ModelMetadataResponse::TensorMetadata& out) {
  out.set_name(EscapeWhole(spec.name));
  out.set_datatype(std::string(ProtocolName(spec.dtype)));
  for (const std::int64_t dim : spec.shape) out.add_shape(dim);
}

// For ModelInput and ModelOutput alike.
template <typename Message>
void Configure(const TensorSpec& spec, bool batched, Message& out) {
  out.set_name(EscapeWhole(spec.name));
  out.set_data_type(DataTypeOf(spec.dtype));
  const std::size_t first = batched && !spec.shape.empty() ? 1 : 0;
  for (std::size_t i = first; i < spec.shape.size(); ++i) out.add_dims(spec.shape[i]);
}

// As an unsigned or narrower number; what does not fit becomes the nearest that does.
template <typename To>
To Clamp(std::int64_t value) {
  const auto magnitude = static_cast<std::uint64_t>(std::max<std::int64_t>(value, 0));
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<To>::max());
  return static_cast<To>(std::min(magnitude, kMost));
}

void SetDuration(const serving::DurationTotal& total, inference::StatisticDuration& out) {
  out.set_count(total.count);
  out.set_ns(total.nanoseconds);
}

std::string_view IndexState(serving::VersionState state) {
  switch (state) {
    case serving::VersionState::kServing:
    case serving::VersionState::kLoaded:
      return "READY";
    case serving::VersionState::kLoading:
      return "LOADING";
    case serving::VersionState::kRefused:
    case serving::VersionState::kRetrying:
      return "UNAVAILABLE";
    default:
      return "";
  }
}

void AddLoaded(const serving::ModelStatus& model, inference::RepositoryIndexResponse& out) {
  for (const serving::LoadedVersion& version : model.loaded) {
    inference::RepositoryIndexResponse::ModelIndex* row = out.add_models();
    row->set_name(EscapeWhole(model.name));
    row->set_version(Concat(version.version));
    row->set_state("READY");
  }
}

void AddCandidates(const serving::ModelStatus& model, inference::RepositoryIndexResponse& out) {
  for (const serving::CandidateStatus& candidate : model.candidates) {
    const std::string_view state = IndexState(candidate.state);
    if (!candidate.version || state.empty() || state == "READY") continue;
    inference::RepositoryIndexResponse::ModelIndex* row = out.add_models();
    row->set_name(EscapeWhole(model.name));
    row->set_version(Concat(*candidate.version));
    row->set_state(std::string(state));
    row->set_reason(Utf8(candidate.reason));
  }
}

template <typename Request>
absl::Status CheckRepository(const Request& request) {
  if (!request.repository_name().empty()) {
    return absl::UnimplementedError(Concat("repository_name \"", Escape(request.repository_name()),
                                           "\": there is one repository; leave the name empty"));
  }
  return CheckModelName(request.model_name());
}

inference::ModelQueuePolicy ToPolicy(const config::QueuePolicy& policy) {
  inference::ModelQueuePolicy out;
  if (policy.delay_late) out.set_timeout_action(inference::ModelQueuePolicy::DELAY);
  if (policy.default_timeout < absl::InfiniteDuration()) {
    out.set_default_timeout_microseconds(
        Clamp<std::uint64_t>(absl::ToInt64Microseconds(policy.default_timeout)));
  }
  out.set_allow_timeout_override(policy.allow_timeout_override);
  // No limit is 0.
  const bool limited = policy.max_queue_size < std::numeric_limits<std::int64_t>::max();
  if (limited) out.set_max_queue_size(Clamp<std::uint32_t>(policy.max_queue_size));
  return out;
}

void Configure(const config::Batching& batching, inference::ModelDynamicBatching& out) {
  for (const std::int64_t size : batching.preferred_batch_sizes) {
    out.add_preferred_batch_size(Clamp<std::int32_t>(size));
  }
  out.set_max_queue_delay_microseconds(
      Clamp<std::uint64_t>(absl::ToInt64Microseconds(batching.max_queue_delay)));
  inference::ModelQueuePolicy& all = *out.mutable_default_queue_policy();
  std::int64_t most = batching.max_queue_size;
  if (batching.levels.size() == 1) {
    all = ToPolicy(batching.levels.front());
    most = std::min(most, batching.levels.front().max_queue_size);
  } else {
    out.set_priority_levels(batching.levels.size());
    out.set_default_priority_level(batching.default_level + 1);
    for (std::size_t i = 0; i < batching.levels.size(); ++i) {
      (*out.mutable_priority_queue_policy())[i + 1] = ToPolicy(batching.levels[i]);
    }
  }
  all.set_max_queue_size(Clamp<std::uint32_t>(most));
}

}  // namespace

inference::ModelMetadataResponse ToMetadata(const serving::ModelInfo& info) {
  inference::ModelMetadataResponse out;
  out.set_name(EscapeWhole(info.name));
  for (const std::int64_t version : info.loaded_versions) out.add_versions(Concat(version));
  out.set_platform(info.platform);
  for (const TensorSpec& spec : info.inputs) Describe(spec, *out.add_inputs());
  for (const TensorSpec& spec : info.outputs) Describe(spec, *out.add_outputs());
  return out;
}

inference::ModelConfig ToConfig(const serving::ModelInfo& info) {
  inference::ModelConfig out;
  const bool batched = info.batching.max_batch_size > 0;
  out.set_name(EscapeWhole(info.name));
  out.set_platform(info.platform);
  out.set_backend("relight");
  out.mutable_version_policy()->mutable_latest()->set_num_versions(1);
  out.set_max_batch_size(Clamp<std::int32_t>(info.batching.max_batch_size));
  for (const TensorSpec& spec : info.inputs) Configure(spec, batched, *out.add_input());
  for (const TensorSpec& spec : info.outputs) Configure(spec, batched, *out.add_output());
  inference::ModelInstanceGroup* group = out.add_instance_group();
  group->set_name(EscapeWhole(info.name));
  group->set_count(1);
  group->set_kind(info.on_gpu ? inference::ModelInstanceGroup::KIND_GPU
                              : inference::ModelInstanceGroup::KIND_CPU);
  out.mutable_model_transaction_policy()->set_decoupled(false);
  if (batched || info.batching.levels != config::Batching().levels) {
    Configure(info.batching, *out.mutable_dynamic_batching());
  }
  return out;
}

inference::ModelStatistics ToStatistics(std::string_view model,
                                        const serving::VersionStatistics& statistics) {
  inference::ModelStatistics out;
  out.set_name(EscapeWhole(model));
  out.set_version(Concat(statistics.version));
  out.set_last_inference(Clamp<std::uint64_t>(absl::ToUnixMillis(statistics.last_inference)));
  out.set_inference_count(statistics.inference_count);
  out.set_execution_count(statistics.execution_count);
  inference::InferStatistics* totals = out.mutable_inference_stats();
  SetDuration(statistics.success, *totals->mutable_success());
  SetDuration(statistics.fail, *totals->mutable_fail());
  SetDuration(statistics.queue, *totals->mutable_queue());
  SetDuration(statistics.compute_input, *totals->mutable_compute_input());
  SetDuration(statistics.compute_infer, *totals->mutable_compute_infer());
  SetDuration(statistics.compute_output, *totals->mutable_compute_output());
  for (const serving::BatchTotal& batch : statistics.batches) {
    inference::InferBatchStatistics* row = out.add_batch_stats();
    row->set_batch_size(batch.batch_size);
    SetDuration(batch.compute_input, *row->mutable_compute_input());
    SetDuration(batch.compute_infer, *row->mutable_compute_infer());
    SetDuration(batch.compute_output, *row->mutable_compute_output());
  }
  return out;
}

inference::RepositoryIndexResponse ToIndex(absl::Span<const serving::ModelStatus> models,
                                           bool only_ready) {
  inference::RepositoryIndexResponse out;
  for (const serving::ModelStatus& model : models) {
    const int before = out.models_size();
    AddLoaded(model, out);
    if (only_ready) continue;
    AddCandidates(model, out);
    if (out.models_size() > before) continue;
    inference::RepositoryIndexResponse::ModelIndex* row = out.add_models();
    row->set_name(EscapeWhole(model.name));
    row->set_state("UNAVAILABLE");
    row->set_reason(Utf8(model.reason));
  }
  return out;
}

absl::Status CheckModelName(std::string_view name) {
  const absl::string_view trimmed = absl::StripAsciiWhitespace(ToAbsl(name));
  const bool control = std::any_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c));
  });
  if (!trimmed.empty() && trimmed != "." && trimmed != ".." && !control &&
      name.find('/') == std::string_view::npos) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      Concat("model name \"", Escape(name), "\": must be the name of a folder, not a path"));
}

absl::Status CheckRepositoryRequest(const inference::RepositoryModelLoadRequest& request) {
  RELIGHT_RETURN_IF_ERROR(CheckRepository(request));
  for (const auto& [name, value] : request.parameters()) {
    if (name != "config" && !name.starts_with("file:")) continue;
    return absl::InvalidArgumentError(Concat(
        "parameter ", Escape(name), ": configs and files are taken from the model's folder only"));
  }
  return absl::OkStatus();
}

absl::Status CheckRepositoryRequest(const inference::RepositoryModelUnloadRequest& request) {
  return CheckRepository(request);
}

}  // namespace relight::rpc
