// Trees that no trainer would save, and their storages: all that the writer can be asked to write.
#ifndef RELIGHT_TESTS_STORAGE_RANDOM_CHECKPOINT_H_
#define RELIGHT_TESTS_STORAGE_RANDOM_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "storage/tree.h"
#include "storage/writer.h"

namespace relight::storage {

// Follows from the seed alone. Storages are shared by tensors of several shapes, strides and
// dtypes, values by several containers; about one value in twenty cannot be written.
class RandomCheckpoint final : public StorageSource {
 public:
  explicit RandomCheckpoint(unsigned seed);

  const Tree& tree() const { return tree_; }

  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const override;
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return storages_[index].bytes.size();
  }
  DType ElementType(std::uint32_t index) const override { return storages_[index].dtype; }
  bool IsUntyped(std::uint32_t index) const override { return storages_[index].untyped; }

 private:
  struct Storage {
    DType dtype = DType::kUInt8;
    bool untyped = false;
    std::string bytes;
  };

  std::size_t Below(std::size_t limit);
  bool OneIn(std::size_t count) { return Below(count) == 0; }
  std::int64_t Integer();
  std::string Text();
  std::string Bytes(std::size_t size);
  DType AnyDType();

  void AddStorages();
  NodeId AddValue(int depth);
  // How many values `node` is written as, when what is shared is written again each time.
  std::size_t Unfolded(NodeId node) const;
  NodeId AddContainer(int depth);
  NodeId AddSequence(NodeKind kind, int depth);
  NodeId AddSet(int depth);
  NodeId AddDict(NodeKind kind, int depth);
  NodeId AddLeaf();
  NodeId AddNumpyScalar();
  NodeId AddUnwritable();
  NodeId AddTensor();
  void MakeStrides(TensorInfo& tensor, std::int64_t elements);
  // A value that may be a key and that is unlike all keys before, to Python too.
  NodeId AddKey();

  std::mt19937_64 random_;
  Tree tree_;
  std::vector<Storage> storages_;
  // What may be shared without making a cycle, or a file of gigabytes.
  std::vector<NodeId> finished_;
  std::unordered_map<NodeId, std::size_t> unfolded_;
  std::int64_t keys_ = 0;
};

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_RANDOM_CHECKPOINT_H_
