#include "tests/fuzz/checkpoint_run.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <set>
#include <vector>

#include "base/escape.h"
#include "storage/bytes.h"
#include "storage/checkpoint_source.h"
#include "storage/error.h"
#include "storage/file_audit.h"
#include "storage/input_file.h"
#include "storage/state_dict.h"
#include "storage/weights.h"
#include "storage/weights_digest.h"
#include "storage/write_plan.h"
#include "storage/writer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/storage/tree_comparison.h"

namespace relight::fuzz {
namespace {

using storage::Checkpoint;
using storage::CheckpointSource;
using storage::ErrorCode;
using storage::StorageInfo;

// Weights that need more than this are planned but not loaded, and such trees not written: the
// input would only be slow.
constexpr std::uint64_t kMaxRunBytes = std::uint64_t{1} << 20;

// Reads every storage; those that do not have the CRC-32 that the file gives, by key.
std::set<std::string> DamagedStorages(const Checkpoint& checkpoint) {
  std::set<std::string> damaged;
  std::vector<std::byte> buffer(4096);
  for (std::size_t i = 0; i < checkpoint.storages().size(); ++i) {
    const StorageInfo& info = checkpoint.storages()[i];
    const std::uint64_t file_bytes = checkpoint.files()[info.file].size_bytes();
    Require(info.file_offset <= file_bytes && info.size_bytes <= file_bytes - info.file_offset,
            "a storage lies outside of the file");
    std::uint64_t seen = 0;
    const absl::Status status = checkpoint.StreamStorage(
        i, absl::MakeSpan(buffer), [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
          Require(offset == seen, "the chunks of a storage do not follow each other");
          seen += chunk.size();
          return absl::OkStatus();
        });
    Require(seen == info.size_bytes, "a storage gave more or less than its size");
    if (status.ok()) continue;
    Require(storage::GetErrorCode(status) == ErrorCode::kCrcMismatch, status.ToString());
    damaged.insert(info.key);
  }
  return damaged;
}

// The audit of the whole file finds the same damage.
void CheckAudit(const Checkpoint& checkpoint, const std::set<std::string>& damaged) {
  const auto audits = storage::AuditFiles(checkpoint, {});
  Require(audits.ok() && audits->size() == 1, audits.status().ToString());
  std::set<std::string> found;
  for (const storage::RecordAudit& record : audits->front().records) {
    if (record.crc != storage::CrcStatus::kDiffers || !record.name.starts_with("data/")) continue;
    found.insert(record.name.substr(std::string_view("data/").size()));
  }
  for (const StorageInfo& info : checkpoint.storages()) {
    Require(damaged.contains(info.key) == found.contains(info.key),
            "storage " + info.key + " is damaged, or is not");
  }
}

bool Same(const storage::NonFinite& a, const storage::NonFinite& b) {
  return a.tensor == b.tensor && a.nans == b.nans && a.infinities == b.infinities &&
         a.first_nan == b.first_nan && a.first_infinity == b.first_infinity;
}

// Memory as the loader and the examiner want it.
absl::StatusOr<std::shared_ptr<std::byte>> AlignedMemory(std::size_t size_bytes) {
  void* const memory =
      std::aligned_alloc(storage::kWeightAlignment,
                         (size_bytes / storage::kWeightAlignment + 1) * storage::kWeightAlignment);
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), std::free);
}

// Loading and examining find the same.
void LoadWeights(const Checkpoint& checkpoint, const storage::StateDict& state_dict, bool intact) {
  const auto plan = storage::PlanWeights(checkpoint, state_dict, {});
  if (!plan.ok()) return CheckRefusal(plan.status());
  if (plan->total_bytes > kMaxRunBytes) return;
  const auto examined = storage::ExamineWeights(checkpoint, *plan, {AlignedMemory});
  const std::shared_ptr<std::byte> memory = *AlignedMemory(plan->total_bytes);
  const absl::Span<std::byte> block(memory.get(), static_cast<std::size_t>(plan->total_bytes));
  const auto loaded = storage::LoadWeights(checkpoint, *plan, block);
  Require(examined.ok() == loaded.ok(),
          "examined: " + examined.status().ToString() + ", loaded: " + loaded.status().ToString());
  if (!loaded.ok()) {
    CheckRefusal(loaded.status());
    Require(!intact, "intact weights do not load: " + loaded.status().ToString());
    return;
  }
  Require(examined->digest == loaded->digest && examined->crc_absent == loaded->crc_absent,
          "loading and examining give two digests");
  const auto digest = storage::DigestBlock(*plan, block, {});
  Require(digest.ok() && *digest == loaded->digest, "the block does not have the load's digest");
  const std::vector<storage::NonFinite>& odd = loaded->non_finite;
  Require(std::equal(odd.begin(), odd.end(), examined->non_finite.begin(),
                     examined->non_finite.end(), Same),
          "loading and examining find other values that are not finite");
  const absl::Status finite =
      storage::RefuseNonFinite(*plan, odd, [](const std::string&) { return false; });
  Require(odd.empty() ? finite.ok() : absl::IsInvalidArgument(finite), finite.ToString());
}

std::uint64_t TensorBytes(const Checkpoint& checkpoint) {
  std::uint64_t bytes = 0;
  const storage::Tree& tree = checkpoint.tree();
  for (storage::NodeId node = 0; node < tree.size(); ++node) {
    if (!tree.Is(node, storage::NodeKind::kTensor)) continue;
    std::uint64_t elements = 1;
    for (const std::int64_t size : tree.tensor(node).shape) {
      elements *= static_cast<std::uint64_t>(size);
    }
    bytes += elements * ItemSize(tree.tensor(node).dtype);
  }
  return bytes;
}

absl::Status Write(const Checkpoint& checkpoint, std::string& bytes) {
  bytes.clear();
  return storage::WriteCheckpoint(checkpoint.tree(), checkpoint.tree().root(),
                                  CheckpointSource(checkpoint), {},
                                  [&](absl::Span<const std::byte> piece) {
                                    bytes.append(storage::AsText(piece));
                                    return absl::OkStatus();
                                  })
      .status();
}

// A snapshot of the whole tree is read equal, and a snapshot of that is the same file.
void RunSnapshot(const Checkpoint& before) {
  if (TensorBytes(before) > kMaxRunBytes) return;
  const auto plan = storage::WritePlan::Make(before.tree(), before.tree().root());
  if (!plan.ok()) {
    Require(storage::GetErrorCode(plan.status()) == ErrorCode::kPickleCycle,
            plan.status().ToString());
    return;
  }
  std::string once;
  if (const absl::Status status = Write(before, once); !status.ok()) {
    Require(!plan->CanWrite(before.tree().root()), status.ToString());
    return;
  }
  static const ScratchFile file;
  file.Write(once);
  storage::ReadOptions strict;
  strict.require_crc = true;
  const auto after = Checkpoint::Open(file.path(), strict);
  Require(after.ok(), "a snapshot is refused: " + after.status().ToString());
  const CheckpointSource old_bytes(before);
  const CheckpointSource new_bytes(*after);
  const std::string difference =
      storage::TreeComparison(before.tree(), after->tree(), *plan,
                              storage::CompareValues(old_bytes, new_bytes))
          .Difference(before.tree().root(), after->tree().root());
  Require(difference.empty(), "a snapshot differs at " + difference);
  std::string twice;
  Require(Write(*after, twice).ok() && once == twice, "a snapshot of a snapshot is another file");
}

}  // namespace

storage::ReadOptions SmallLimits() {
  storage::ReadOptions options;
  options.limits.max_entries = 500;
  options.limits.max_nodes = 20'000;
  options.limits.max_stack_items = 1'000;
  options.limits.max_open_marks = 100;
  options.limits.max_depth = 100;
  options.limits.max_expanded_nodes = 20'000;
  options.limits.max_string_bytes = 2'000;
  options.limits.max_blob_bytes = 1'000;
  options.limits.max_global_line_bytes = 100;
  options.limits.max_rank = 16;
  options.limits.max_tensor_bytes = std::uint64_t{1} << 30;
  options.limits.max_expanded_bytes = std::uint64_t{1} << 18;
  return options;
}

ScratchFile::ScratchFile() : fd_(::memfd_create("relight-fuzz", MFD_CLOEXEC)) {
  Require(fd_ >= 0, "no file can be made in memory");
  path_ = "/proc/self/fd/" + std::to_string(fd_);
}

void ScratchFile::Write(std::string_view content) const {
  const bool written =
      ::ftruncate(fd_, static_cast<off_t>(content.size())) == 0 &&
      ::pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size());
  Require(written, "the file in memory cannot be written");
}

void CheckRefusal(const absl::Status& status) {
  constexpr std::size_t kMaxMessageBytes = 8192;
  Require(storage::GetErrorCode(status).has_value(), "no code: " + status.ToString());
  Require(status.message().size() < kMaxMessageBytes, "a message is too long for a log");
  Require(IsUtf8(std::string(status.message())), "a message is not UTF-8");
}

absl::Status RunCheckpoint(const std::string& path, const storage::ReadOptions& options) {
  const auto checkpoint = Checkpoint::Open(path, options);
  if (!checkpoint.ok()) {
    CheckRefusal(checkpoint.status());
    return checkpoint.status();
  }
  if (checkpoint->summary().crc_absent && !options.require_crc) {
    storage::ReadOptions strict = options;
    strict.require_crc = true;
    Require(
        storage::GetErrorCode(Checkpoint::Open(path, strict).status()) == ErrorCode::kCrcMismatch,
        "a file without all CRCs is taken although they are required");
  }
  const std::set<std::string> damaged = DamagedStorages(*checkpoint);
  const bool intact = damaged.empty();
  CheckAudit(*checkpoint, damaged);
  const auto state_dict = storage::FindStateDict(*checkpoint);
  if (state_dict.ok()) {
    LoadWeights(*checkpoint, *state_dict, intact);
  } else {
    CheckRefusal(state_dict.status());
  }
  if (intact) RunSnapshot(*checkpoint);
  return absl::OkStatus();
}

}  // namespace relight::fuzz
