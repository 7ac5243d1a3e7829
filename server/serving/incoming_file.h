// A pushed checkpoint before it is in its folder: written aside, compared with what was announced,
// and proven by the loader's own checks, so that what would be refused never appears there.
#ifndef RELIGHT_SERVER_SERVING_INCOMING_FILE_H_
#define RELIGHT_SERVER_SERVING_INCOMING_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/serving/model_manager.h"
#include "server/serving/server_core.h"
#include "storage/atomic_file.h"
#include "storage/sha256.h"
#include "storage/weights.h"

namespace relight::serving {

// INVALID_ARGUMENT where a file of this name in a watched folder would be no checkpoint of its own.
absl::Status CheckPushedName(std::string_view name);

// Thread-compatible. Steps in this order; after an error only destroying makes sense, which leaves
// nothing behind.
class IncomingFile {
 public:
  // In the watched folder of `where`, which is made where only it is missing. See
  // ServerCore::BeginPush for errors.
  static absl::StatusOr<std::unique_ptr<IncomingFile>> Create(const PushRequest& request,
                                                              const config::Checkpoints& where);

  // INVALID_ARGUMENT for more bytes than were announced; what storage/atomic_file.h says.
  absl::Status Write(absl::Span<const std::byte> bytes);
  // INVALID_ARGUMENT for fewer bytes than were announced, DATA_LOSS for others than `file_sha256`
  // says. Returns that as lower-case hex. Call once.
  absl::StatusOr<std::string> CheckWhole(std::string_view file_sha256);
  // What the loader would say of it, but for binding and warm-up; the digest of its weights.
  absl::StatusOr<storage::WeightsDigest> CheckAccepted(const ModelManager::PushTarget& target,
                                                       const storage::ExamineTools& tools) const;
  // Where this fails, `is_in_place` says whether it did so with the file in the folder already.
  absl::Status MoveIntoPlace();
  bool is_in_place() const { return file_.is_in_place(); }

  const std::string& name() const { return name_; }
  const std::string& folder() const { return folder_; }
  std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  IncomingFile(const PushRequest& request, std::string folder, storage::AtomicFile file)
      : name_(request.file),
        folder_(std::move(folder)),
        size_bytes_(request.size_bytes),
        file_(std::move(file)) {}

  absl::StatusOr<storage::WeightsDigest> Examine(const ModelManager::PushTarget& target,
                                                 const storage::ExamineTools& tools) const;

  const std::string name_;
  const std::string folder_;
  const std::uint64_t size_bytes_;
  storage::AtomicFile file_;
  storage::Sha256 sha256_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_INCOMING_FILE_H_
