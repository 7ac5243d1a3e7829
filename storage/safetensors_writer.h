// Writing the tensors of a state dict as a safetensors file.
#ifndef RELIGHT_STORAGE_SAFETENSORS_WRITER_H_
#define RELIGHT_STORAGE_SAFETENSORS_WRITER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "storage/storage_source.h"
#include "storage/tree.h"
#include "storage/write_report.h"

namespace relight::storage {

// Writes the tensors of the dict `state_dict` to `sink` in one pass: their bytes dense and in the
// order of the reference implementation (widest types first, then by name), so that each is
// aligned; their names in the dict's order. Of tied tensors the first is written and the others
// are noted in the metadata, as "left out": "kept", beside the metadata that the tree has
// from a safetensors file, or {"format": "pt"}. Deterministic, in bounded memory (StreamDense).
//
// left_out lists what is no tensor: other values, and a state dict's _metadata. converted lists
// parameters and views, which come back as plain and dense tensors, and tensors that share memory
// without being equal, which come back apart.
//
// Errors: INVALID_ARGUMENT where a tensor has a type or a name that the format cannot hold (all are
// listed), `state_dict` is no dict, or, lossless, anything is left out; LIMIT_EXCEEDED where the
// names alone are more than the format allows; whatever the source or the sink says.
absl::StatusOr<WriteReport> WriteSafetensors(const Tree& tree, NodeId state_dict,
                                             const StorageSource& source,
                                             const WriteOptions& options, const ByteSink& sink);

// How many bytes WriteSafetensors would give to its sink.
absl::StatusOr<std::uint64_t> PredictSafetensorsBytes(const Tree& tree, NodeId state_dict);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SAFETENSORS_WRITER_H_
