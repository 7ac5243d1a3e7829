// Writes a checkpoint that is larger than 4 GiB, as a sparse file that takes next to no disk, and
// reads it back with our own reader.
//
//   write_large_checkpoint TARGET.pt
//   write_large_checkpoint TARGET.safetensors
//
// The tensors are "before" (float32: 1, 2), "huge" (uint8, kHugeBytes of zeros but for kMarks) and
// "after" (float32: 3, 4, 5): the latter's place needs more than 32 bits, and so does the size of
// the former. large_checkpoint_test.py knows all of that.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "storage/checkpoint.h"
#include "storage/posix_error.h"
#include "storage/safetensors_writer.h"
#include "storage/writer.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kHugeBytes = (std::uint64_t{1} << 32) + 12345;
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

const std::map<std::uint64_t, std::byte>& Marks() {
  static const std::map<std::uint64_t, std::byte> marks = {{0, std::byte{1}},
                                                           {std::uint64_t{1} << 31, std::byte{2}},
                                                           {std::uint64_t{1} << 32, std::byte{3}},
                                                           {kHugeBytes - 1, std::byte{4}}};
  return marks;
}

class LargeSource final : public StorageSource {
 public:
  absl::Status Stream(std::uint32_t index, const ByteSink& sink) const override {
    if (index != 1) return sink(Floats(index));
    std::vector<std::byte> piece(kPieceBytes);
    for (std::uint64_t at = 0; at < kHugeBytes; at += kPieceBytes) {
      const std::uint64_t end = std::min<std::uint64_t>(at + kPieceBytes, kHugeBytes);
      std::fill(piece.begin(), piece.end(), std::byte{0});
      for (auto mark = Marks().lower_bound(at); mark != Marks().end() && mark->first < end;
           ++mark) {
        piece[mark->first - at] = mark->second;
      }
      RELIGHT_RETURN_IF_ERROR(sink(absl::MakeSpan(piece.data(), end - at)));
    }
    return absl::OkStatus();
  }
  std::uint64_t SizeBytes(std::uint32_t index) const override {
    return index == 1 ? kHugeBytes : Floats(index).size();
  }
  DType ElementType(std::uint32_t index) const override {
    return index == 1 ? DType::kUInt8 : DType::kFloat32;
  }

 private:
  static absl::Span<const std::byte> Floats(std::uint32_t index) {
    static constexpr float kBefore[] = {1, 2};
    static constexpr float kAfter[] = {3, 4, 5};
    return index == 0 ? absl::MakeSpan(reinterpret_cast<const std::byte*>(kBefore), sizeof kBefore)
                      : absl::MakeSpan(reinterpret_cast<const std::byte*>(kAfter), sizeof kAfter);
  }
};

// Leaves out what is zero.
class SparseFile {
 public:
  explicit SparseFile(const std::string& path)
      : fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {}

  absl::Status Write(absl::Span<const std::byte> bytes) {
    const bool zeros = std::all_of(bytes.begin(), bytes.end(),
                                   [](std::byte byte) { return byte == std::byte{0}; });
    const auto offset = static_cast<off_t>(size_bytes_);
    size_bytes_ += bytes.size();
    if (zeros) return absl::OkStatus();
    const ssize_t written = ::pwrite(fd_.get(), bytes.data(), bytes.size(), offset);
    if (written == static_cast<ssize_t>(bytes.size())) return absl::OkStatus();
    return PosixError("writing", errno);
  }
  absl::Status Finish() {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_bytes_)) == 0) return absl::OkStatus();
    return PosixError("setting the size", errno);
  }

 private:
  const UniqueFd fd_;
  std::uint64_t size_bytes_ = 0;
};

void AddTensor(Tree& tree, const char* name, std::uint32_t storage, std::int64_t elements) {
  TensorInfo tensor;
  tensor.storage = storage;
  tensor.dtype = storage == 1 ? DType::kUInt8 : DType::kFloat32;
  tensor.shape = {elements};
  tensor.stride = {1};
  tree.SetItem(tree.root(), tree.AddText(NodeKind::kString, name),
               tree.AddTensor(std::move(tensor)));
}

absl::Status Write(const std::string& path) {
  Tree tree;
  tree.set_root(tree.Add(NodeKind::kDict));
  AddTensor(tree, "before", 0, 2);
  AddTensor(tree, "huge", 1, static_cast<std::int64_t>(kHugeBytes));
  AddTensor(tree, "after", 2, 3);
  SparseFile file(path);
  const ByteSink sink = [&file](absl::Span<const std::byte> bytes) { return file.Write(bytes); };
  const LargeSource source;
  RELIGHT_RETURN_IF_ERROR(path.ends_with(".safetensors")
                              ? WriteSafetensors(tree, tree.root(), source, {}, sink).status()
                              : WriteCheckpoint(tree, tree.root(), source, {}, sink).status());
  return file.Finish();
}

// Every byte and checksum.
absl::Status ReadBack(const std::string& path) {
  RELIGHT_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(path));
  const Tree& tree = checkpoint.tree();
  const NodeId huge = tree.Find(tree.root(), "huge");
  std::map<std::uint64_t, std::byte> marks;
  std::vector<std::byte> buffer(kPieceBytes);
  for (std::size_t i = 0; i < checkpoint.storages().size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(checkpoint.StreamStorage(
        i, absl::MakeSpan(buffer), [&](std::uint64_t offset, absl::Span<const std::byte> chunk) {
          for (std::size_t k = 0; k < chunk.size() && i == tree.tensor(huge).storage; ++k) {
            if (chunk[k] != std::byte{0}) marks[offset + k] = chunk[k];
          }
          return absl::OkStatus();
        }));
  }
  if (marks == Marks()) return absl::OkStatus();
  return absl::DataLossError("the huge tensor reads back with other bytes");
}

absl::Status Main(const std::string& path) {
  RELIGHT_RETURN_IF_ERROR(Write(path));
  return ReadBack(path);
}

}  // namespace
}  // namespace relight::storage

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_large_checkpoint TARGET.pt|TARGET.safetensors\n";
    return 2;
  }
  const absl::Status status = relight::storage::Main(argv[1]);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
