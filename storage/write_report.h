// What became of the values that a writer was given.
#ifndef RELIGHT_STORAGE_WRITE_REPORT_H_
#define RELIGHT_STORAGE_WRITE_REPORT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "storage/checkpoint.h"

namespace relight::storage {

struct WriteOptions {
  // Refuse (INVALID_ARGUMENT, listing all) instead of leaving out what cannot be written.
  bool lossless = false;
  // What whoever reads the file back will allow: WriteCheckpoint keeps to max_pickle_bytes and
  // max_expanded_nodes (LIMIT_EXCEEDED). The others only reading it back can tell.
  ReadLimits limits = {};
};

struct WriteReport {
  // "/path/in/the/tree: class" of what was left out.
  std::vector<std::string> left_out;
  // "/path/in/the/tree: as what" of what was written as something else than it was.
  std::vector<std::string> converted;
};

// Gathers the lines of a list; of too many it only says how many more there are. Thread-compatible.
class ReportLines {
 public:
  void Add(std::string line);
  std::vector<std::string> Take() &&;

 private:
  std::vector<std::string> lines_;
  std::size_t count_ = 0;
};

// "a; b; ...": the first 32 of `lines`, for a message.
std::string FirstLines(const std::vector<std::string>& lines);

// OK where nothing was left out; else the INVALID_ARGUMENT of a lossless write.
absl::Status CheckLossless(const std::vector<std::string>& left_out);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_WRITE_REPORT_H_
