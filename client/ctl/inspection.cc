#include "client/ctl/inspection.h"

#include <map>
#include <memory>
#include <new>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "client/ctl/output.h"
#include "server/config/acceptance.h"
#include "storage/error.h"
#include "storage/input_file.h"
#include "storage/strided.h"

namespace relight::ctl {
namespace {

using storage::ErrorCode;
using storage::TensorInfo;

// Views are looked at in memory, a storage at a time; a file can be sparse and claim any size.
constexpr std::size_t kMaxScratchBytes = std::size_t{4} << 30;

absl::StatusOr<std::shared_ptr<std::byte>> AllocateScratch(std::size_t size_bytes) {
  if (size_bytes > kMaxScratchBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a storage of which the weights are views takes ", FormatBytes(size_bytes),
                     " of memory to look at, the limit is ", FormatBytes(kMaxScratchBytes),
                     "; --quick leaves the values alone"));
  }
  constexpr std::align_val_t kAlignment{storage::kWeightAlignment};
  void* const memory = ::operator new(size_bytes, kAlignment, std::nothrow);
  if (memory == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", FormatBytes(size_bytes), " of weights"));
  }
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [](std::byte* bytes) { ::operator delete(bytes, kAlignment); });
}

Outcome OutcomeOf(const absl::Status& status) {
  if (status.ok()) return Outcome::kAcceptable;
  if (const auto code = storage::GetErrorCode(status)) {
    return *code == ErrorCode::kIoError ? Outcome::kFailed : Outcome::kRefused;
  }
  return absl::IsInvalidArgument(status) ? Outcome::kRefused : Outcome::kFailed;
}

// Two tensors that agree in this are the same elements.
using View = std::tuple<std::uint32_t, DType, std::int64_t, std::vector<std::int64_t>,
                        std::vector<std::int64_t>, bool, bool>;

class Inspector {
 public:
  Inspector(const std::string& path, const InspectOptions& options) : options_(options) {
    result_.path = path;
  }

  Inspection Run() {
    absl::Status verdict = Look();
    result_.outcome = OutcomeOf(verdict);
    if (verdict.ok() && result_.config.has_value() && result_.config->graph_unknown) {
      result_.outcome = Outcome::kUndecided;
      verdict = absl::FailedPreconditionError(
          absl::StrCat(options_.config_name,
                       " has a TorchScript graph: only relightd, which loads it, can tell whether "
                       "it takes these names and shapes"));
    }
    result_.error = std::move(verdict);
    return std::move(result_);
  }

 private:
  // Everything, in the loader's order; the first thing that it would object to.
  absl::Status Look() {
    absl::Status verdict = Open();
    if (!result_.checkpoint.has_value()) return verdict;
    verdict.Update(FindWeights());
    ListWeights();
    result_.held = FindHeldValues(*result_.checkpoint, FoundWeights(), kMostListed);
    const absl::Status planned = Plan();
    verdict.Update(planned);
    if (options_.quick) return verdict;
    if (absl::Status audited = Audit(); !audited.ok()) return audited;
    if (planned.ok() && result_.state_dict.has_value()) verdict.Update(Examine());
    verdict.Update(CheckRecords());
    return verdict;
  }

  absl::Status Open() {
    const storage::ReadOptions options = options_.config == nullptr
                                             ? storage::ReadOptions()
                                             : config::ReadOptionsOf(options_.config->checkpoints);
    absl::StatusOr<storage::Checkpoint> opened = storage::Checkpoint::Open(result_.path, options);
    absl::Status verdict = opened.status();
    // What only the config objects to can be shown all the same.
    if (!opened.ok() && (options.require_crc || options.reject_unknown_globals)) {
      opened = storage::Checkpoint::Open(result_.path);
    }
    if (opened.ok()) result_.checkpoint.emplace(*std::move(opened));
    return verdict;
  }

  absl::Status FindWeights() {
    if (options_.config == nullptr) {
      storage::StateDictOptions where;
      where.key = options_.state_dict_key;
      where.strip_prefix = options_.strip_prefix;
      return FindAnyWeights(where);
    }
    const config::Checkpoints& where = options_.config->checkpoints;
    ConfigFindings& findings = result_.config.emplace();
    findings.allow_non_finite = options_.config->allow_non_finite;
    const auto* const network = std::get_if<network::Network>(&options_.config->graph);
    if (network == nullptr) {
      findings.graph_unknown = true;
      return FindAnyWeights(config::WhereWeightsAre(where));
    }
    findings.parameters = network->parameters();
    absl::StatusOr<config::WeightsComparison> compared =
        config::CompareWeights(*result_.checkpoint, where, findings.parameters);
    if (!compared.ok()) return result_.weights_error = compared.status();
    result_.state_dict = std::move(compared->state_dict);
    findings.mismatch = std::move(compared->mismatch);
    findings.left_aside = std::move(compared->left_aside);
    return ToStatus(findings.mismatch);
  }

  absl::Status FindAnyWeights(const storage::StateDictOptions& where) {
    absl::StatusOr<storage::StateDict> found = storage::FindStateDict(*result_.checkpoint, where);
    if (!found.ok()) return result_.weights_error = found.status();
    result_.state_dict = *std::move(found);
    return absl::OkStatus();
  }

  const storage::StateDict* FoundWeights() const {
    return result_.state_dict.has_value() ? &*result_.state_dict : nullptr;
  }

  void ListWeights() {
    if (!result_.state_dict.has_value()) return;
    const storage::Tree& tree = result_.checkpoint->tree();
    std::map<View, std::size_t> first_of_view;
    std::unordered_map<std::uint32_t, std::size_t> first_of_storage;
    std::size_t index = 0;
    for (const storage::StateDictEntry& entry : result_.state_dict->entries) {
      const TensorInfo& info = tree.tensor(entry.node);
      InspectedWeight weight{entry.key, entry.original_key, entry.node};
      weight.size_bytes = storage::CountElements(info.shape) * ItemSize(info.dtype);
      // A layout that has no strides (sparse, say) is named, not described.
      weight.contiguous =
          info.stride.size() == info.shape.size() && storage::IsDense(info.shape, info.stride);
      bool counts = true;
      if (tree.Is(entry.node, storage::NodeKind::kTensor) && weight.size_bytes > 0) {
        const auto [same, is_new] =
            first_of_view.emplace(View{info.storage, info.dtype, info.offset_elements, info.shape,
                                       info.stride, info.conj, info.neg},
                                  index);
        if (!is_new) weight.tied_to = same->second;
        counts = is_new;
        const auto [other, is_first] = first_of_storage.emplace(info.storage, index);
        if (is_new && !is_first) {
          weight.shares_storage = true;
          if (other->second < result_.weights.size()) {
            result_.weights[other->second].shares_storage = true;
          }
        }
      }
      if (counts) {
        result_.elements += storage::CountElements(info.shape);
        result_.element_bytes += weight.size_bytes;
      }
      if (result_.weights.size() < kMostListed) {
        result_.weights.push_back(std::move(weight));
      } else {
        ++result_.omitted_weights;
      }
      ++index;
    }
  }

  // What the server would read: the graph's parameters, or all there is.
  absl::Status Plan() {
    if (!result_.state_dict.has_value()) return absl::OkStatus();
    const bool fits = result_.config.has_value() && !result_.config->graph_unknown &&
                      result_.config->mismatch.empty();
    absl::StatusOr<storage::WeightPlan> plan =
        fits ? config::PlanFor(*result_.checkpoint, *result_.state_dict, result_.config->parameters)
             : storage::PlanWeights(*result_.checkpoint, *result_.state_dict, {});
    if (!plan.ok()) return result_.weights_error = plan.status();
    plan_ = *std::move(plan);
    return absl::OkStatus();
  }

  // Counts bytes for the progress of one pass.
  std::function<absl::Status(std::uint64_t)> Counter(const char* pass, std::uint64_t total) const {
    return [this, pass, total, done = std::uint64_t{0}](std::uint64_t bytes) mutable {
      done += bytes;
      if (options_.progress) options_.progress(pass, done, total);
      return absl::OkStatus();
    };
  }

  absl::Status Audit() {
    std::uint64_t total = 0;
    for (const storage::InputFile& file : result_.checkpoint->files()) total += file.size_bytes();
    absl::StatusOr<std::vector<storage::FileAudit>> files =
        storage::AuditFiles(*result_.checkpoint, Counter("checking the file", total));
    if (!files.ok()) return files.status();
    result_.files = *std::move(files);
    return absl::OkStatus();
  }

  absl::Status Examine() {
    std::uint64_t total = 0;
    for (const storage::WeightPiece& piece : plan_.pieces) {
      total += result_.checkpoint->storages()[piece.storage].size_bytes;
    }
    absl::StatusOr<storage::ExaminedWeights> examined = storage::ExamineWeights(
        *result_.checkpoint, plan_, {AllocateScratch, Counter("reading the weights", total)});
    if (!examined.ok()) return result_.weights_error = examined.status();
    result_.digest = examined->digest;
    std::unordered_map<std::string_view, InspectedWeight*> by_key;
    for (InspectedWeight& weight : result_.weights) by_key.emplace(weight.key, &weight);
    for (const storage::NonFinite& found : examined->non_finite) {
      const auto weight = by_key.find(plan_.tensors[found.tensor].key);
      if (weight != by_key.end()) weight->second->non_finite = found;
    }
    return CheckValues(examined->non_finite);
  }

  // Without a config NaN is shown and no more: a config may allow it.
  absl::Status CheckValues(const std::vector<storage::NonFinite>& found) const {
    if (options_.config == nullptr) return absl::OkStatus();
    if (result_.config->graph_unknown) {
      // Which of them are buffers, which may be infinite, is not known either.
      if (options_.config->allow_non_finite) return absl::OkStatus();
      return storage::RefuseNonFinite(plan_, found, [](const std::string&) { return true; });
    }
    return config::CheckValues(*options_.config, result_.config->parameters, plan_, found);
  }

  absl::Status CheckRecords() const {
    std::string first;
    std::size_t damaged = 0;
    for (const storage::FileAudit& file : result_.files) {
      for (const storage::RecordAudit& record : file.records) {
        if (record.crc != storage::CrcStatus::kDiffers) continue;
        if (++damaged == 1) {
          first = absl::StrCat(file.name, ": record ", Escape(record.name),
                               " does not have the CRC-32 that the file gives: it was damaged");
        }
      }
    }
    if (damaged == 0) return absl::OkStatus();
    if (damaged > 1) absl::StrAppend(&first, "; and ", damaged - 1, " more");
    return storage::MakeError(ErrorCode::kCrcMismatch, first);
  }

  const InspectOptions& options_;
  Inspection result_;
  storage::WeightPlan plan_;
};

}  // namespace

std::string_view Name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kAcceptable:
      return "acceptable";
    case Outcome::kRefused:
      return "refused";
    case Outcome::kUndecided:
      return "undecided";
    case Outcome::kFailed:
      return "failed";
  }
  return "?";
}

Inspection Inspect(const std::string& path, const InspectOptions& options) {
  return Inspector(path, options).Run();
}

}  // namespace relight::ctl
