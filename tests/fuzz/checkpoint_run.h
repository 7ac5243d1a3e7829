// What a server and a client do with a checkpoint, from opening it to a snapshot of it, on bytes
// that may be anything. Shared by the fuzz targets of the containers.
#ifndef RELIGHT_TESTS_FUZZ_CHECKPOINT_RUN_H_
#define RELIGHT_TESTS_FUZZ_CHECKPOINT_RUN_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "storage/checkpoint.h"

namespace relight::fuzz {

// The default limits, scaled down so that small inputs reach them and none is slow.
storage::ReadOptions SmallLimits();

// A file without a disk that every run writes again.
class ScratchFile {
 public:
  ScratchFile();
  const std::string& path() const { return path_; }
  void Write(std::string_view content) const;

 private:
  int fd_ = -1;
  std::string path_;
};

// Aborts unless a refusal says why: one of the storage layer's codes, in a message that fits a log.
void CheckRefusal(const absl::Status& status);

// Opens the file; where that works, reads every storage, loads the weights, writes the tree as a
// snapshot, and opens that. Aborts where a promise of a header is broken.
absl::Status RunCheckpoint(const std::string& path, const storage::ReadOptions& options);

}  // namespace relight::fuzz

#endif  // RELIGHT_TESTS_FUZZ_CHECKPOINT_RUN_H_
