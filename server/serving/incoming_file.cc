#include "server/serving/incoming_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "server/config/acceptance.h"
#include "storage/candidate_names.h"
#include "storage/checkpoint.h"
#include "storage/posix_error.h"

namespace relight::serving {
namespace {

constexpr std::size_t kSha256Digits = 64;

absl::Status NameError(std::string_view name, std::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("a checkpoint cannot be pushed as ", Escape(name), ": ", std::string(problem)));
}

// Makes the last component where the others are there, as for a model that was only just added.
absl::StatusOr<UniqueFd> OpenWatchedFolder(const std::string& path) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  UniqueFd fd(::open(path.c_str(), kFlags));
  if (!fd.valid() && errno == ENOENT && (::mkdir(path.c_str(), 0755) == 0 || errno == EEXIST)) {
    fd.reset(::open(path.c_str(), kFlags));
  }
  if (fd.valid()) return fd;
  return storage::PosixError(absl::StrCat("the watched folder ", Escape(path, 1024)), errno);
}

// Before anything is sent; a file system that reserves room says the same with fewer words.
absl::Status CheckRoom(int folder, const PushRequest& request) {
  struct statvfs info {};
  if (::fstatvfs(folder, &info) != 0 || info.f_blocks == 0) return absl::OkStatus();
  const std::uint64_t free_bytes = std::uint64_t{info.f_bavail} * info.f_frsize;
  if (request.size_bytes <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("file ", Escape(request.file), " has ", request.size_bytes,
                   " bytes, and the disk of the watched folder has room for ", free_bytes,
                   ": remove old checkpoints"));
}

}  // namespace

absl::Status CheckPushedName(std::string_view name) {
  if (name.find('/') != name.npos) {
    return NameError(name, "give the name of a file, without folders");
  }
  if (const absl::Status path = storage::CheckRelativePath(name); !path.ok()) return path;
  if (const std::string why = storage::WhyNotByName(name); !why.empty()) {
    return NameError(name, absl::StrCat(why, "; such files are left alone"));
  }
  if (storage::IsIndex(name) || storage::LooksLikeShard(name)) {
    return NameError(name,
                     "a checkpoint of several files cannot be pushed: copy them into the folder, "
                     "or save it as one file");
  }
  if (!storage::HasCandidateSuffix(name)) {
    return NameError(name,
                     absl::StrCat("it has none of the suffixes ", storage::kWholeFileSuffixes));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<IncomingFile>> IncomingFile::Create(
    const PushRequest& request, const config::Checkpoints& where) {
  RELIGHT_RETURN_IF_ERROR(CheckPushedName(request.file));
  if (request.size_bytes > where.limits.max_file_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("file ", Escape(request.file), " has ", request.size_bytes,
                     " bytes, more than limits { max_file_bytes: ", where.limits.max_file_bytes,
                     " } in model.textproto allows"));
  }
  RELIGHT_ASSIGN_OR_RETURN(const UniqueFd folder, OpenWatchedFolder(where.folder));
  RELIGHT_RETURN_IF_ERROR(CheckRoom(folder.get(), request));
  RELIGHT_ASSIGN_OR_RETURN(
      storage::AtomicFile file,
      storage::AtomicFile::Create(folder.get(), request.file, request.overwrite));
  RELIGHT_RETURN_IF_ERROR(file.Reserve(request.size_bytes));
  return std::unique_ptr<IncomingFile>(new IncomingFile(request, where.folder, std::move(file)));
}

absl::Status IncomingFile::Write(absl::Span<const std::byte> bytes) {
  if (bytes.size() > size_bytes_ - file_.written_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("file ", Escape(name_), ": ", file_.written_bytes() + bytes.size(),
                     " bytes came and ", size_bytes_, " were announced; nothing of it was kept"));
  }
  RELIGHT_RETURN_IF_ERROR(file_.Write(bytes));
  sha256_.Update(bytes);
  return absl::OkStatus();
}

absl::StatusOr<std::string> IncomingFile::CheckWhole(std::string_view file_sha256) {
  if (file_.written_bytes() != size_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("file ", Escape(name_), ": ", file_.written_bytes(), " bytes came and ",
                     size_bytes_, " were announced; nothing of it was kept"));
  }
  const std::string announced =
      absl::AsciiStrToLower(absl::string_view(file_sha256.data(), file_sha256.size()));
  if (announced.size() != kSha256Digits ||
      announced.find_first_not_of("0123456789abcdef") != announced.npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("file ", Escape(name_), ": the SHA-256 that came with the commit is \"",
                     Escape(file_sha256), "\", not ", kSha256Digits, " hexadecimal digits"));
  }
  std::string found = sha256_.FinishHex();
  if (found == announced) return found;
  return absl::DataLossError(
      absl::StrCat("file ", Escape(name_), ": the bytes that came have the SHA-256 ", found,
                   ", and ", announced, " was announced; nothing of it was kept, push it again"));
}

absl::StatusOr<storage::WeightsDigest> IncomingFile::CheckAccepted(
    const ModelManager::PushTarget& target, const storage::ExamineTools& tools) const {
  absl::StatusOr<storage::WeightsDigest> digest = Examine(target, tools);
  if (digest.ok() || absl::IsCancelled(digest.status())) return digest;
  // Nobody knows it by its temporary name.
  const std::string path = file_.temporary_path();
  const std::string message = absl::StrReplaceAll(
      digest.status().message(), {{Escape(path.substr(path.rfind('/') + 1)), Escape(name_)}});
  return absl::Status(digest.status().code(),
                      absl::StrCat("model ", Escape(target.config.name), " does not take ",
                                   Escape(name_), ", and nothing of it was kept: ", message));
}

absl::StatusOr<storage::WeightsDigest> IncomingFile::Examine(
    const ModelManager::PushTarget& target, const storage::ExamineTools& tools) const {
  const config::Checkpoints& where = target.config.checkpoints;
  RELIGHT_ASSIGN_OR_RETURN(
      const storage::Checkpoint checkpoint,
      storage::Checkpoint::Open(file_.temporary_path(), config::ReadOptionsOf(where)));
  RELIGHT_ASSIGN_OR_RETURN(const storage::StateDict state_dict,
                           config::FindWeights(checkpoint, where, target.parameters));
  RELIGHT_ASSIGN_OR_RETURN(const storage::WeightPlan plan,
                           config::PlanFor(checkpoint, state_dict, target.parameters));
  RELIGHT_ASSIGN_OR_RETURN(const storage::ExaminedWeights examined,
                           storage::ExamineWeights(checkpoint, plan, tools));
  RELIGHT_RETURN_IF_ERROR(
      config::CheckValues(target.config, target.parameters, plan, examined.non_finite));
  return examined.digest;
}

absl::Status IncomingFile::MoveIntoPlace() { return file_.Commit(); }

}  // namespace relight::serving
