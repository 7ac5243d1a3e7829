// The formats that a checkpoint can come in. Each reader checks everything in the file but the
// bytes of the tensors, and gives the same thing: a tree, the storages, and a summary.
#ifndef RELIGHT_STORAGE_CONTAINER_H_
#define RELIGHT_STORAGE_CONTAINER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/checkpoint.h"
#include "storage/input_file.h"
#include "storage/tree.h"

namespace relight::storage {

struct Contents {
  std::shared_ptr<Tree> tree = std::make_shared<Tree>();
  std::vector<StorageInfo> storages;
  Summary summary;
};

// What the first bytes of a file say it is. EMPTY_FILE, NOT_A_CHECKPOINT, MISSING_RECORD, or
// UNSUPPORTED_FORMAT, naming the foreign format where we know it.
absl::StatusOr<Format> SniffFormat(const InputFile& file, const std::string& path);

// torch.save since 1.6.
absl::StatusOr<Contents> ReadZip(const InputFile& file, const ReadOptions& options);
// torch.save before 1.6.
absl::StatusOr<Contents> ReadLegacyStream(const InputFile& file, const ReadOptions& options);
absl::StatusOr<Contents> ReadSafetensors(const InputFile& file, const ReadOptions& options);

// One file of any format but an index.
absl::StatusOr<Contents> ReadSingleFile(const InputFile& file, Format format,
                                        const ReadOptions& options);

struct ShardedContents {
  Contents contents;
  std::vector<InputFile> shards;  // StorageInfo::file is 1 for the first of these.
};
// The shards that an index names, which lie beside it. `path` is the index's.
absl::StatusOr<ShardedContents> ReadShardedIndex(const InputFile& index, const std::string& path,
                                                 const ReadOptions& options);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_CONTAINER_H_
