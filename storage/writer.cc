#include "storage/writer.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/tensor_stream.h"
#include "storage/tree_pickler.h"
#include "storage/write_plan.h"
#include "storage/zip_writer.h"

namespace relight::storage {
namespace {

absl::StatusOr<PickledTree> Pickle(const Tree& tree, NodeId root, const StorageSource& source,
                                   const ReadLimits& limits) {
  RELIGHT_ASSIGN_OR_RETURN(const WritePlan plan, WritePlan::Make(tree, root));
  return PickleTree(tree, root, plan, source, limits);
}

absl::Status WriteStorage(const Tree& tree, const OutputStorage& storage,
                          const StorageSource& source, ZipWriter& zip) {
  const ByteSink append = [&zip](absl::Span<const std::byte> bytes) { return zip.Append(bytes); };
  if (storage.resolved == kNoNode) {
    return StreamRun(source, storage.source, storage.begin_bytes, storage.size_bytes, append);
  }
  return StreamDense(tree.tensor(storage.resolved), source, append);
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
  RELIGHT_ASSIGN_OR_RETURN(PickledTree pickled, Pickle(tree, root, source, options.limits));
  if (options.lossless) RELIGHT_RETURN_IF_ERROR(CheckLossless(pickled.report.left_out));
  ZipWriter zip(sink);
  RELIGHT_RETURN_IF_ERROR(WriteRecords(pickled, zip, [&](const OutputStorage& storage) {
    return WriteStorage(tree, storage, source, zip);
  }));
  return std::move(pickled.report);
}

absl::StatusOr<std::uint64_t> PredictCheckpointBytes(const Tree& tree, NodeId root,
                                                     const StorageSource& source,
                                                     const WriteOptions& options) {
  RELIGHT_ASSIGN_OR_RETURN(const PickledTree pickled, Pickle(tree, root, source, options.limits));
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
