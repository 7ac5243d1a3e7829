// Checkpoints made for one test: a tree and its storages, written by our own writer.
#ifndef RELIGHT_TESTS_STORAGE_MADE_CHECKPOINT_H_
#define RELIGHT_TESTS_STORAGE_MADE_CHECKPOINT_H_

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "storage/checkpoint.h"
#include "storage/tree.h"
#include "storage/weights.h"
#include "storage/writer.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {

class MadeCheckpoint final : public StorageSource {
 public:
  Tree tree;

  template <typename T>
  std::uint32_t AddStorage(DType dtype, const std::vector<T>& values) {
    std::string bytes(values.size() * sizeof(T), '\0');
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    storages_.emplace_back(dtype, std::move(bytes));
    return static_cast<std::uint32_t>(storages_.size() - 1);
  }

  NodeId AddTensor(std::uint32_t storage, std::vector<std::int64_t> shape,
                   std::vector<std::int64_t> stride, std::int64_t offset = 0) {
    TensorInfo info;
    info.dtype = storages_[storage].first;
    info.storage = storage;
    info.shape = std::move(shape);
    info.stride = std::move(stride);
    info.offset_elements = offset;
    return tree.AddTensor(std::move(info));
  }
  // A vector of float32 in a storage of its own.
  NodeId AddFloats(const std::vector<float>& values) {
    return AddTensor(AddStorage(DType::kFloat32, values),
                     {static_cast<std::int64_t>(values.size())}, {1});
  }

  NodeId AddDict(const std::vector<std::pair<std::string, NodeId>>& items,
                 NodeKind kind = NodeKind::kDict) {
    const NodeId dict = tree.Add(kind);
    for (const auto& [key, value] : items) {
      tree.SetItem(dict, tree.AddText(NodeKind::kString, key), value);
    }
    return dict;
  }

  // Writes the tree below `root` to `path` and opens it.
  absl::StatusOr<Checkpoint> WriteAndOpen(NodeId root, const std::string& path) const {
    std::string bytes;
    const absl::StatusOr<WriteReport> written =
        WriteCheckpoint(tree, root, *this, {}, [&](absl::Span<const std::byte> piece) {
          bytes.append(reinterpret_cast<const char*>(piece.data()), piece.size());
          return absl::OkStatus();
        });
    if (!written.ok()) return written.status();
    std::ofstream(path, std::ios::binary) << bytes;
    return Checkpoint::Open(path);
  }

  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const override {
    const std::string& bytes = storages_[index].second;
    return sink({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()});
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return storages_[index].second.size();
  }
  DType ElementType(std::uint32_t index) const override { return storages_[index].first; }

 private:
  std::vector<std::pair<DType, std::string>> storages_;
};

// Memory for a plan's weights, aligned.
class Block {
 public:
  explicit Block(std::uint64_t size_bytes) : memory_(size_bytes + kWeightAlignment) {
    const auto at = reinterpret_cast<std::uintptr_t>(memory_.data());
    span_ = {memory_.data() + (kWeightAlignment - at % kWeightAlignment) % kWeightAlignment,
             static_cast<std::size_t>(size_bytes)};
  }
  absl::Span<std::byte> span() const { return span_; }

 private:
  std::vector<std::byte> memory_;
  absl::Span<std::byte> span_;
};

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_MADE_CHECKPOINT_H_
