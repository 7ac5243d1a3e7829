#include "server/serving/snapshot_format.h"

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/candidate_names.h"

namespace relight::serving {
namespace {

constexpr std::string_view kSafetensorsSuffix = ".safetensors";

// Of a checkpoint in the other format.
bool HasTorchSuffix(std::string_view path) {
  return storage::HasCandidateSuffix(path) && !path.ends_with(kSafetensorsSuffix);
}

absl::Status Contradiction(std::string_view one, std::string_view other, std::string_view advice) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(one), " and ", std::string(other),
                                                 " contradict each other: ", std::string(advice)));
}

std::string ShownPath(const SnapshotRequest& request) {
  return absl::StrCat("the path ", Escape(request.path, 1024));
}

// Whether what the request says holds together.
absl::Status CheckRequest(const SnapshotRequest& request) {
  const std::string format = absl::StrCat("the format ", std::string(Name(request.format)));
  if (request.format == SnapshotFormat::kBundle && request.weights_only) {
    return Contradiction(format, "weights_only", "ask for a state-dict, or for all of it");
  }
  const bool safetensors_path = request.path.ends_with(kSafetensorsSuffix);
  if (request.format == SnapshotFormat::kSafetensors && HasTorchSuffix(request.path)) {
    return Contradiction(format, ShownPath(request),
                         "end the path in .safetensors, or ask for another format");
  }
  const bool torch_file =
      request.format == SnapshotFormat::kBundle || request.format == SnapshotFormat::kStateDict;
  if (torch_file && safetensors_path) {
    return Contradiction(format, ShownPath(request), "end the path in .pt, or ask for safetensors");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SnapshotFormat> ChooseSnapshotFormat(const SnapshotRequest& request,
                                                    const SnapshotOrigin& origin) {
  RELIGHT_RETURN_IF_ERROR(CheckRequest(request));
  if (request.format == SnapshotFormat::kBundle && !origin.holds_more_than_weights) {
    return absl::FailedPreconditionError(
        absl::StrCat("the format bundle carries what a checkpoint holds beside the weights, and ",
                     Escape(origin.file), " held nothing beside them: ask for state-dict"));
  }
  if (request.format != SnapshotFormat::kAsSource) return request.format;
  if (request.path.ends_with(kSafetensorsSuffix)) return SnapshotFormat::kSafetensors;
  if (origin.format == storage::Format::kSafetensors && !HasTorchSuffix(request.path)) {
    return SnapshotFormat::kSafetensors;
  }
  return origin.holds_more_than_weights && !request.weights_only ? SnapshotFormat::kBundle
                                                                 : SnapshotFormat::kStateDict;
}

std::string_view Name(SnapshotFormat format) {
  switch (format) {
    case SnapshotFormat::kAsSource:
      return "as the source";
    case SnapshotFormat::kBundle:
      return "bundle";
    case SnapshotFormat::kStateDict:
      return "state-dict";
    case SnapshotFormat::kSafetensors:
      return "safetensors";
  }
  return "?";
}

std::string_view SuffixOf(SnapshotFormat format) {
  return format == SnapshotFormat::kSafetensors ? kSafetensorsSuffix : ".pt";
}

}  // namespace relight::serving
