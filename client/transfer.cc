#include "client/transfer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "client/admin_messages.h"
#include "storage/atomic_file.h"
#include "storage/bytes.h"
#include "storage/input_file.h"
#include "storage/posix_error.h"
#include "storage/sha256.h"

namespace relight::client {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

std::string BaseName(const std::string& path) { return path.substr(path.rfind('/') + 1); }

// The folder that a file at `path` lies in.
std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

// What goes wrong here says nothing about a server, as UNAVAILABLE would.
absl::Status Local(const absl::Status& status) {
  return absl::IsUnavailable(status) ? absl::InternalError(status.message()) : status;
}

// --- to a server ---

class Sender {
 public:
  Sender(v1::Admin::Stub& stub, CallContext& context, const storage::InputFile& file,
         const Progress& progress)
      : context_(context),
        file_(file),
        progress_(progress),
        writer_(stub.PushCheckpoint(context.get(), &response_)) {}

  absl::StatusOr<PushResult> Run(const v1::PushHeader& header) {
    if (const absl::Status sent = Send(header); !sent.ok()) {
      // The server would wait for the rest.
      context_.Cancel();
      writer_->Finish();
      return Local(sent);
    }
    // Where the server did not want to hear all of it, this says why.
    RELIGHT_RETURN_IF_ERROR(FromGrpc(writer_->Finish()));
    return FromMessage(response_);
  }

 private:
  // An error only for what goes wrong here.
  absl::Status Send(const v1::PushHeader& header) {
    v1::PushRequest part;
    *part.mutable_header() = header;
    if (!writer_->Write(part)) return absl::OkStatus();
    storage::Sha256 sha256;
    for (std::uint64_t sent = 0; sent < file_.size_bytes();) {
      std::string& chunk = *part.mutable_chunk();
      chunk.resize(std::min<std::uint64_t>(kChunkBytes, file_.size_bytes() - sent));
      RELIGHT_RETURN_IF_ERROR(
          file_.ReadAt(sent, {reinterpret_cast<std::byte*>(chunk.data()), chunk.size()}));
      sha256.Update(storage::AsBytes(chunk));
      sent += chunk.size();
      if (!writer_->Write(part)) return absl::OkStatus();
      if (progress_) progress_(sent, file_.size_bytes());
    }
    // A trainer may have written over it meanwhile: half of each is nobody's checkpoint.
    if (!file_.CheckContentUnchanged().ok()) {
      return absl::AbortedError(
          absl::StrCat(file_.shown_name(),
                       " changed while it was sent, so that nothing of it was "
                       "kept: push it again"));
    }
    part.mutable_commit()->set_file_sha256(sha256.FinishHex());
    if (writer_->Write(part)) writer_->WritesDone();
    return absl::OkStatus();
  }

  CallContext& context_;
  const storage::InputFile& file_;
  const Progress& progress_;
  v1::PushResponse response_;
  const std::unique_ptr<grpc::ClientWriter<v1::PushRequest>> writer_;
};

// --- from a server ---

class Receiver {
 public:
  Receiver(v1::Admin::Stub& stub, CallContext& context, const v1::DownloadRequest& request,
           storage::AtomicFile file, const Progress& progress)
      : context_(context),
        file_(std::move(file)),
        progress_(progress),
        reader_(stub.DownloadSnapshot(context.get(), request)) {}

  absl::StatusOr<SnapshotResult> Run() {
    if (const absl::Status received = Receive(); !received.ok()) {
      context_.Cancel();
      reader_->Finish();
      return Local(received);
    }
    RELIGHT_RETURN_IF_ERROR(FromGrpc(reader_->Finish()));
    RELIGHT_RETURN_IF_ERROR(CheckWhole());
    RELIGHT_RETURN_IF_ERROR(Local(file_.Commit()));
    return *std::move(result_);
  }

 private:
  // An error only for what goes wrong here.
  absl::Status Receive() {
    v1::DownloadResponse part;
    while (reader_->Read(&part)) {
      if (part.has_result()) result_ = FromMessage(part.result());
      if (part.part_case() == v1::DownloadResponse::kChunk) {
        RELIGHT_RETURN_IF_ERROR(file_.Write(storage::AsBytes(part.chunk())));
        sha256_.Update(storage::AsBytes(part.chunk()));
      }
      if (progress_) progress_(file_.written_bytes(), result_ ? result_->size_bytes : 0);
    }
    return absl::OkStatus();
  }

  absl::Status CheckWhole() {
    if (!result_.has_value()) {
      return absl::InternalError("the server ended the download without saying what it sent");
    }
    const std::string sha256 = sha256_.FinishHex();
    if (file_.written_bytes() == result_->size_bytes && sha256 == result_->file_sha256) {
      return absl::OkStatus();
    }
    return absl::DataLossError(absl::StrCat("of ", result_->size_bytes, " bytes with the SHA-256 ",
                                            Escape(result_->file_sha256), " came ",
                                            file_.written_bytes(), " bytes with the SHA-256 ",
                                            sha256, ": download it again"));
  }

  CallContext& context_;
  storage::AtomicFile file_;
  const Progress& progress_;
  const std::unique_ptr<grpc::ClientReader<v1::DownloadResponse>> reader_;
  storage::Sha256 sha256_;
  std::optional<SnapshotResult> result_;
};

// At `path`, but that nothing is there yet.
absl::StatusOr<storage::AtomicFile> CreateAt(const std::string& path, bool overwrite) {
  const std::string folder = FolderOf(path);
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    return storage::PosixError(absl::StrCat("folder ", Escape(folder, 1024)), errno);
  }
  // What a download that was killed has left. Not worth failing for.
  storage::RemoveStaleTemporaries(fd.get(), storage::Reach::kFolder).IgnoreError();
  return storage::AtomicFile::Create(fd.get(), BaseName(path), overwrite);
}

}  // namespace

absl::StatusOr<PushResult> SendCheckpoint(v1::Admin::Stub& stub, CallContext& context,
                                          const std::string& model, const std::string& path,
                                          const PushOptions& options, const Progress& progress) {
  if (::access(path.c_str(), R_OK) != 0) {
    return Local(storage::PosixError(Escape(path, 1024), errno));
  }
  absl::StatusOr<storage::InputFile> file =
      storage::InputFile::Open(path, std::numeric_limits<std::int64_t>::max());
  if (!file.ok()) return absl::InvalidArgumentError(file.status().message());
  const std::string name = options.file.empty() ? BaseName(path) : options.file;
  if (!IsUtf8(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name ", Escape(name), " is not UTF-8: give the file another one"));
  }
  v1::PushHeader header;
  header.set_model(model);
  header.set_file(name);
  header.set_size_bytes(file->size_bytes());
  header.set_overwrite(options.overwrite);
  header.set_no_wait(!options.wait);
  return Sender(stub, context, *file, progress).Run(header);
}

absl::StatusOr<SnapshotResult> ReceiveSnapshot(v1::Admin::Stub& stub, CallContext& context,
                                               const std::string& model, const std::string& path,
                                               const DownloadOptions& options,
                                               const Progress& progress) {
  absl::StatusOr<storage::AtomicFile> file = CreateAt(path, options.overwrite);
  if (!file.ok()) return Local(file.status());
  v1::DownloadRequest request;
  request.set_model(model);
  // Only its suffix says something there.
  request.set_file(Escape(BaseName(path), 1024));
  if (options.version.has_value()) request.set_version(*options.version);
  request.set_weights_only(options.weights_only);
  request.set_lossless(options.lossless);
  request.set_format(static_cast<v1::SnapshotFormat>(options.format));
  Receiver receiver(stub, context, request, *std::move(file), progress);
  RELIGHT_ASSIGN_OR_RETURN(SnapshotResult result, receiver.Run());
  result.path = path;
  return result;
}

}  // namespace relight::client
