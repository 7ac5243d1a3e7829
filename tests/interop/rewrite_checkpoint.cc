// Writes the snapshot of a checkpoint as the server would, for tests that load it with PyTorch.
//
//   rewrite_checkpoint [--weights-only] [--whole-tree] [--safetensors] [--lossless] SOURCE TARGET
//
// Prints what was left out and converted, one value per line. --whole-tree writes the tree as it
// is, without looking for a state dict; --safetensors writes the weights in that format.
#include <fcntl.h>

#include <filesystem>
#include <iostream>
#include <set>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "storage/checkpoint_source.h"
#include "storage/safetensors_writer.h"
#include "storage/snapshot_tree.h"
#include "storage/state_dict.h"
#include "storage/writer.h"

namespace relight::storage {
namespace {

absl::StatusOr<SnapshotTree> ChooseTree(const Checkpoint& checkpoint,
                                        const std::set<std::string>& flags) {
  if (flags.count("--whole-tree") > 0) {
    return SnapshotTree{checkpoint.tree(), checkpoint.tree().root()};
  }
  RELIGHT_ASSIGN_OR_RETURN(const StateDict state_dict, FindStateDict(checkpoint));
  const bool weights_only = flags.count("--weights-only") + flags.count("--safetensors") > 0;
  return MakeSnapshotTree(checkpoint.tree(), state_dict, weights_only);
}

absl::StatusOr<WriteReport> Rewrite(const std::string& source, const std::filesystem::path& target,
                                    const std::set<std::string>& flags) {
  RELIGHT_ASSIGN_OR_RETURN(const Checkpoint checkpoint, Checkpoint::Open(source));
  RELIGHT_ASSIGN_OR_RETURN(const SnapshotTree snapshot, ChooseTree(checkpoint, flags));
  const UniqueFd folder(::open(target.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  RELIGHT_ASSIGN_OR_RETURN(AtomicFile file,
                           AtomicFile::Create(folder.get(), target.filename(), false));
  WriteOptions options;
  options.lossless = flags.count("--lossless") > 0;
  const auto write = flags.count("--safetensors") > 0 ? WriteSafetensors : WriteCheckpoint;
  RELIGHT_ASSIGN_OR_RETURN(
      WriteReport report,
      write(snapshot.tree, snapshot.root, CheckpointSource(checkpoint), options,
            [&](absl::Span<const std::byte> bytes) { return file.Write(bytes); }));
  RELIGHT_RETURN_IF_ERROR(checkpoint.CheckUnchanged());
  RELIGHT_RETURN_IF_ERROR(file.Sync());
  RELIGHT_RETURN_IF_ERROR(Checkpoint::Open(file.temporary_path()).status());
  RELIGHT_RETURN_IF_ERROR(file.Commit());
  return report;
}

int Main(const std::vector<std::string>& arguments) {
  std::set<std::string> flags;
  std::vector<std::string> paths;
  for (const std::string& argument : arguments) {
    argument.starts_with("--") ? void(flags.insert(argument)) : paths.push_back(argument);
  }
  if (paths.size() != 2) {
    std::cerr << "usage: rewrite_checkpoint [--weights-only] [--whole-tree] [--safetensors] "
                 "[--lossless] SOURCE TARGET\n";
    return 2;
  }
  const absl::StatusOr<WriteReport> report = Rewrite(paths[0], paths[1], flags);
  if (!report.ok()) {
    std::cerr << report.status().message() << "\n";
    return 1;
  }
  for (const std::string& line : report->left_out) std::cout << "left out " << line << "\n";
  for (const std::string& line : report->converted) std::cout << "converted " << line << "\n";
  return 0;
}

}  // namespace
}  // namespace relight::storage

int main(int argc, char** argv) { return relight::storage::Main({argv + 1, argv + argc}); }
