// What the parts of one pickle's parser share: the tree they build, the limits, and how to word an
// error. Belongs to one load.
#ifndef RELIGHT_STORAGE_PARSE_CONTEXT_H_
#define RELIGHT_STORAGE_PARSE_CONTEXT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "storage/checkpoint.h"
#include "storage/error.h"
#include "storage/tree.h"

namespace relight::storage {

class ParseContext {
 public:
  // `where` opens every message: "file.pt: data.pkl". `input_bytes` bounds what the pickle may make
  // us copy. `tree` outlives this object.
  ParseContext(Tree& tree, const ReadOptions& options, std::string where, std::uint64_t input_bytes)
      : tree_(tree),
        options_(options),
        where_(std::move(where)),
        budget_bytes_(16 * input_bytes + (std::uint64_t{1} << 20)) {}
  ParseContext(const ParseContext&) = delete;
  ParseContext& operator=(const ParseContext&) = delete;

  Tree& tree() { return tree_; }
  const ReadOptions& options() const { return options_; }
  const ReadLimits& limits() const { return options_.limits; }

  void set_offset(std::uint64_t offset) { offset_ = offset; }
  absl::Status Error(ErrorCode code, std::string_view message) const {
    return MakeError(code, absl::StrCat(where_, ": at byte ", offset_, ": ", std::string(message)));
  }

  // Accounts for memory that an opcode takes beyond its own bytes: the memo lets a pickle ask for
  // the same copy any number of times.
  absl::Status Charge(std::uint64_t bytes) {
    if (bytes > budget_bytes_) {
      return Error(ErrorCode::kLimitExceeded,
                   "copies the same values over and over: far more memory than the file is long");
    }
    budget_bytes_ -= bytes;
    return absl::OkStatus();
  }

 private:
  Tree& tree_;
  const ReadOptions& options_;
  std::string where_;
  std::uint64_t offset_ = 0;
  std::uint64_t budget_bytes_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_PARSE_CONTEXT_H_
