#include "storage/writer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "storage/lazy_tensor.h"
#include "storage/tree_pickler.h"
#include "storage/write_plan.h"
#include "storage/zip_writer.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxListed = 32;

absl::Status RefuseLoss(const WriteReport& report) {
  const std::size_t listed = std::min(report.left_out.size(), kMaxListed);
  const std::vector<std::string> first(report.left_out.begin(),
                                       report.left_out.begin() + static_cast<long>(listed));
  return absl::InvalidArgumentError(
      absl::StrCat(report.left_out.size(), " values cannot be written safely (",
                   absl::StrJoin(first, "; "), listed < report.left_out.size() ? "; ..." : "",
                   "): allow leaving them out, or save them otherwise"));
}

absl::StatusOr<PickledTree> Pickle(const Tree& tree, NodeId root, const StorageSource& source) {
  RELIGHT_ASSIGN_OR_RETURN(const WritePlan plan, WritePlan::Make(tree, root));
  return PickleTree(tree, root, plan, source);
}

absl::Status StreamRun(const OutputStorage& storage, const StorageSource& source, ZipWriter& zip) {
  std::uint64_t at = 0;
  const std::uint64_t end = storage.begin_bytes + storage.size_bytes;
  RELIGHT_RETURN_IF_ERROR(source.Stream(storage.source, [&](absl::Span<const std::byte> bytes) {
    const std::uint64_t first = std::max(at, storage.begin_bytes);
    const std::uint64_t last = std::min(at + bytes.size(), end);
    const std::uint64_t here = std::exchange(at, at + bytes.size());
    if (first >= last) return absl::OkStatus();
    return zip.Append(bytes.subspan(first - here, last - first));
  }));
  if (at == source.SizeBytes(storage.source)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("storage ", storage.source, " gave ", at, " bytes, not ",
                                          source.SizeBytes(storage.source)));
}

absl::Status WriteStorage(const Tree& tree, const OutputStorage& storage,
                          const StorageSource& source, ZipWriter& zip) {
  if (storage.resolved == kNoNode) return StreamRun(storage, source, zip);
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<std::byte> dense,
                           ResolveTensor(tree.tensor(storage.resolved), source));
  return zip.Append(dense);
}

// The records in PyTorch's order. `write_data` fills the record of a storage.
absl::Status WriteRecords(const PickledTree& pickled, ZipWriter& zip,
                          const std::function<absl::Status(const OutputStorage&)>& write_data) {
  RELIGHT_RETURN_IF_ERROR(zip.Add("data.pkl", pickled.pickle));
  RELIGHT_RETURN_IF_ERROR(zip.Add(".format_version", "1"));
  RELIGHT_RETURN_IF_ERROR(zip.Add(".storage_alignment", "64"));
  RELIGHT_RETURN_IF_ERROR(zip.Add("byteorder", "little"));
  for (std::size_t key = 0; key < pickled.storages.size(); ++key) {
    const OutputStorage& storage = pickled.storages[key];
    RELIGHT_RETURN_IF_ERROR(zip.Begin(absl::StrCat("data/", key), storage.size_bytes));
    RELIGHT_RETURN_IF_ERROR(write_data(storage));
    RELIGHT_RETURN_IF_ERROR(zip.End());
  }
  RELIGHT_RETURN_IF_ERROR(zip.Add("version", "3\n"));
  RELIGHT_RETURN_IF_ERROR(zip.Add(".data/serialization_id", zip.SerializationId()));
  return zip.Finish();
}

}  // namespace

absl::StatusOr<WriteReport> WriteCheckpoint(const Tree& tree, NodeId root,
                                            const StorageSource& source,
                                            const WriteOptions& options, const ByteSink& sink) {
  RELIGHT_ASSIGN_OR_RETURN(PickledTree pickled, Pickle(tree, root, source));
  if (options.lossless && !pickled.report.left_out.empty()) return RefuseLoss(pickled.report);
  ZipWriter zip(sink);
  RELIGHT_RETURN_IF_ERROR(WriteRecords(pickled, zip, [&](const OutputStorage& storage) {
    return WriteStorage(tree, storage, source, zip);
  }));
  return std::move(pickled.report);
}

absl::StatusOr<std::uint64_t> PredictCheckpointBytes(const Tree& tree, NodeId root,
                                                     const StorageSource& source) {
  RELIGHT_ASSIGN_OR_RETURN(const PickledTree pickled, Pickle(tree, root, source));
  const ByteSink nowhere = [](absl::Span<const std::byte>) { return absl::OkStatus(); };
  ZipWriter zip(nowhere);
  RELIGHT_RETURN_IF_ERROR(WriteRecords(pickled, zip, [&](const OutputStorage&) {
    zip.SkipData();
    return absl::OkStatus();
  }));
  return zip.size_bytes();
}

absl::StatusOr<std::vector<std::uint32_t>> NeededStorages(const Tree& tree, NodeId root) {
  RELIGHT_ASSIGN_OR_RETURN(const WritePlan plan, WritePlan::Make(tree, root));
  return plan.NeededStorages();
}

}  // namespace relight::storage
