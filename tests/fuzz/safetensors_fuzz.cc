// Fuzzes safetensors: the header, the tiling of the data, and what is made of the tensors.
#include <string_view>

#include "storage/container.h"
#include "storage/input_file.h"
#include "tests/fuzz/checkpoint_run.h"
#include "tests/fuzz/fuzz_target.h"

namespace relight::fuzz {
namespace {

// Every tensor is a row-major view of a storage of its own, and those tile the data.
void CheckContents(const storage::Contents& contents, std::uint64_t file_bytes) {
  std::uint64_t bytes = 0;
  for (const storage::StorageInfo& info : contents.storages) {
    Require(info.file_offset >= 8 && info.file_offset + info.size_bytes <= file_bytes,
            "a tensor lies outside of the data");
    bytes += info.size_bytes;
  }
  std::uint64_t data_begin = file_bytes - bytes;
  for (const storage::StorageInfo& info : contents.storages) {
    Require(info.file_offset >= data_begin, "the tensors do not tile the data");
  }
  const storage::Tree& tree = *contents.tree;
  for (const auto& [key, value] : tree.pairs(tree.root())) {
    Require(tree.Is(key, storage::NodeKind::kString), "a name is no text");
    Require(tree.Is(value, storage::NodeKind::kTensor), "a value is no tensor");
    Require(tree.Find(tree.root(), tree.text(key)) == value, "two tensors have one name");
  }
}

}  // namespace
}  // namespace relight::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace relight;
  static const fuzz::ScratchFile file;
  file.Write({reinterpret_cast<const char*>(data), size});
  const storage::ReadOptions options = fuzz::SmallLimits();
  const auto input = storage::InputFile::Open(file.path(), options.limits.max_file_bytes);
  fuzz::Require(input.ok(), input.status().ToString());
  // Whatever the file looks like by its first bytes: an index may name it as a shard.
  const auto format = storage::SniffFormat(*input, "shard.safetensors");
  if (!format.ok()) {
    fuzz::CheckRefusal(format.status());
    return 0;
  }
  if (*format != storage::Format::kSafetensors) return 0;
  const auto contents = storage::ReadSafetensors(*input, options);
  if (!contents.ok()) {
    fuzz::CheckRefusal(contents.status());
    return 0;
  }
  fuzz::CheckContents(*contents, input->size_bytes());
  const absl::Status again = fuzz::RunCheckpoint(file.path(), options);
  fuzz::Require(again.ok(), again.ToString());
  return 0;
}
