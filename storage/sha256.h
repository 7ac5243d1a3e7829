// SHA-256 of a file, by OpenSSL.
#ifndef RELIGHT_STORAGE_SHA256_H_
#define RELIGHT_STORAGE_SHA256_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace relight::storage {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void Update(absl::Span<const std::byte> bytes);
  // Lower-case hex. Call once.
  std::string FinishHex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// Of the first `size_bytes` of an open file. `pace` is called every MiB and may be empty. DATA_LOSS
// where the file is shorter.
absl::StatusOr<std::string> Sha256OfFile(int fd, std::uint64_t size_bytes,
                                         const std::function<absl::Status()>& pace);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SHA256_H_
