#include "storage/atomic_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/posix_error.h"

namespace relight::storage {
namespace {

// Says whose they are: stale ones are removed from folders that others write to as well.
constexpr std::string_view kMarker = ".relight-";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr std::size_t kRandomDigits = 16;
// Leaves room for the dot, the marker, the random part and the suffix within the 255 bytes of a
// name.
constexpr std::size_t kMaxNameInTemporary = 200;
constexpr int kMaxFolders = 100'000;

std::string TemporaryName(const std::string& name) {
  std::uint64_t random = 0;
  // Fails only where the kernel has no randomness yet; O_EXCL then sorts out equal names.
  [[maybe_unused]] const ssize_t got = ::getrandom(&random, sizeof(random), 0);
  return absl::StrCat(".", name.substr(0, kMaxNameInTemporary), std::string(kMarker),
                      absl::Hex(random, absl::kZeroPad16), std::string(kTemporarySuffix));
}

bool IsTemporaryName(std::string_view name) {
  constexpr std::size_t kTail = kMarker.size() + kRandomDigits + kTemporarySuffix.size();
  if (name.size() <= 1 + kTail || name.front() != '.' || !name.ends_with(kTemporarySuffix)) {
    return false;
  }
  const std::string_view tail = name.substr(name.size() - kTail);
  const std::string_view digits = tail.substr(kMarker.size(), kRandomDigits);
  return tail.starts_with(kMarker) && digits.find_first_not_of("0123456789abcdef") == digits.npos;
}

absl::Status Retrying(std::string_view what, const auto& call) {
  while (call() != 0) {
    if (errno != EINTR) return PosixError(what, errno);
  }
  return absl::OkStatus();
}

// Opens the folder `name` of `parent`, making it where it is missing. One component, and
// O_NOFOLLOW: so neither a symlink nor ".." (refused earlier) can lead out.
absl::StatusOr<UniqueFd> OpenOrMakeFolder(int parent, const std::string& name,
                                          const std::string& what) {
  constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  UniqueFd fd(::openat(parent, name.c_str(), kFlags));
  if (!fd.valid() && errno == ENOENT) {
    if (::mkdirat(parent, name.c_str(), 0755) != 0 && errno != EEXIST) {
      return PosixError(absl::StrCat(what, "making the folder ", Escape(name)), errno);
    }
    RELIGHT_RETURN_IF_ERROR(Retrying(what, [&] { return ::fsync(parent); }));
    fd.reset(::openat(parent, name.c_str(), kFlags));
  }
  if (fd.valid()) return fd;
  if (errno == ELOOP || errno == ENOTDIR) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, Escape(name),
                     " is a symlink or a file, not a folder: choose a path "
                     "through folders alone"));
  }
  return PosixError(absl::StrCat(what, "opening the folder ", Escape(name)), errno);
}

absl::Status PathError(std::string_view path, const char* problem) {
  return absl::InvalidArgumentError(absl::StrCat(
      "path ", Escape(path), " ", problem,
      ": give the name of a file below the folder, such as \"model.pt\" or \"run1/model.pt\""));
}

}  // namespace

absl::Status CheckRelativePath(std::string_view path) {
  if (path.empty()) return PathError(path, "is empty");
  if (path.find('\0') != path.npos) return PathError(path, "holds a NUL byte");
  if (path.front() == '/') return PathError(path, "is absolute");
  if (path.back() == '/') return PathError(path, "ends in a slash");
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view component = path.substr(begin, end - begin);
    if (component.empty()) return PathError(path, "has an empty component");
    if (component == "." || component == "..") return PathError(path, "has a . or .. component");
    if (component.size() > 255) return PathError(path, "has a component of over 255 bytes");
    if (IsTemporaryName(component)) return PathError(path, "is reserved for temporary files");
    begin = end + 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<AtomicFile> AtomicFile::Create(int folder_fd, const std::string& relative_path,
                                              bool overwrite) {
  RELIGHT_RETURN_IF_ERROR(CheckRelativePath(relative_path));
  AtomicFile file;
  file.path_ = relative_path;
  file.overwrite_ = overwrite;
  file.parent_.reset(::openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.parent_.valid()) return PosixError(file.Describe("opening the folder"), errno);
  std::size_t begin = 0;
  for (std::size_t slash = 0; (slash = relative_path.find('/', begin)) != std::string::npos;
       begin = slash + 1) {
    RELIGHT_ASSIGN_OR_RETURN(
        file.parent_,
        OpenOrMakeFolder(file.parent_.get(), relative_path.substr(begin, slash - begin),
                         file.Describe("")));
  }
  file.name_ = relative_path.substr(begin);

  struct stat existing {};
  if (::fstatat(file.parent_.get(), file.name_.c_str(), &existing, AT_SYMLINK_NOFOLLOW) == 0) {
    if (S_ISDIR(existing.st_mode)) {
      return absl::InvalidArgumentError(file.Describe("is a folder: choose another name"));
    }
    if (!overwrite) {
      return absl::AlreadyExistsError(
          file.Describe("exists: choose another name, or ask for overwriting"));
    }
  } else if (errno != ENOENT) {
    return PosixError(file.Describe("looking at it"), errno);
  }
  RELIGHT_RETURN_IF_ERROR(file.OpenTemporary());
  return file;
}

absl::Status AtomicFile::OpenTemporary() {
  while (true) {
    std::string name = TemporaryName(name_);
    UniqueFd fd(::openat(parent_.get(), name.c_str(),
                         O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!fd.valid()) {
      if (errno == EEXIST || errno == EINTR) continue;
      return PosixError(Describe("creating it"), errno);
    }
    // Says that it is alive. A file system without locks takes none, and then gives none to who
    // would remove it either.
    while (::flock(fd.get(), LOCK_EX) != 0 && errno == EINTR) {
    }
    struct stat info {};
    if (::fstat(fd.get(), &info) != 0) return PosixError(Describe("looking at it"), errno);
    // Removed as stale between its creation and its lock.
    if (info.st_nlink == 0) continue;
    file_ = std::move(fd);
    temporary_name_ = std::move(name);
    return absl::OkStatus();
  }
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : parent_(std::move(other.parent_)),
      file_(std::move(other.file_)),
      path_(std::move(other.path_)),
      name_(std::move(other.name_)),
      temporary_name_(std::exchange(other.temporary_name_, {})),
      overwrite_(other.overwrite_),
      failed_(other.failed_),
      is_in_place_(other.is_in_place_),
      written_bytes_(other.written_bytes_) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this == &other) return *this;
  Discard();
  parent_ = std::move(other.parent_);
  file_ = std::move(other.file_);
  path_ = std::move(other.path_);
  name_ = std::move(other.name_);
  temporary_name_ = std::exchange(other.temporary_name_, {});
  overwrite_ = other.overwrite_;
  failed_ = other.failed_;
  is_in_place_ = other.is_in_place_;
  written_bytes_ = other.written_bytes_;
  return *this;
}

AtomicFile::~AtomicFile() { Discard(); }

void AtomicFile::Discard() {
  if (!temporary_name_.empty()) ::unlinkat(parent_.get(), temporary_name_.c_str(), 0);
  temporary_name_.clear();
}

std::string AtomicFile::Describe(std::string_view doing) const {
  return absl::StrCat("file ", Escape(path_), ": ", std::string(doing));
}

absl::Status AtomicFile::Reserve(std::uint64_t bytes) {
  if (bytes == 0) return absl::OkStatus();
  int result = 0;
  do {
    result = ::fallocate(file_.get(), FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
  } while (result != 0 && errno == EINTR);
  const bool cannot = errno == EOPNOTSUPP || errno == ENOSYS;
  if (result == 0 || cannot) return absl::OkStatus();
  return PosixError(Describe(absl::StrCat("taking room for ", bytes, " bytes")), errno);
}

absl::Status AtomicFile::Write(absl::Span<const std::byte> bytes) {
  if (temporary_name_.empty() || failed_) {
    return absl::FailedPreconditionError(Describe("committed or failed before"));
  }
  while (!bytes.empty()) {
    const ssize_t n = ::write(file_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      failed_ = true;
      return PosixError(Describe(absl::StrCat("writing after ", written_bytes_, " bytes")), errno);
    }
    bytes.remove_prefix(static_cast<std::size_t>(n));
    written_bytes_ += static_cast<std::uint64_t>(n);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Sync() {
  const absl::Status synced =
      Retrying(Describe("flushing to the disk"), [&] { return ::fsync(file_.get()); });
  failed_ = failed_ || !synced.ok();
  return synced;
}

absl::Status AtomicFile::Commit(unsigned mode) {
  if (temporary_name_.empty() || failed_) {
    return absl::FailedPreconditionError(Describe("committed or failed before"));
  }
  if (::fchmod(file_.get(), static_cast<mode_t>(mode)) != 0) {
    return PosixError(Describe("setting its mode"), errno);
  }
  RELIGHT_RETURN_IF_ERROR(Sync());
  const int parent = parent_.get();
  const char* from = temporary_name_.c_str();
  const char* to = name_.c_str();
  if (overwrite_) {
    if (::renameat(parent, from, parent, to) != 0) return PosixError(Describe("renaming"), errno);
  } else if (::renameat2(parent, from, parent, to, RENAME_NOREPLACE) != 0) {
    // Some file systems lack the flag; a link never replaces anything either.
    const bool unsupported = errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP;
    if (unsupported && ::linkat(parent, from, parent, to, 0) == 0) {
      ::unlinkat(parent, from, 0);
    } else if (errno == EEXIST) {
      return absl::AlreadyExistsError(
          Describe("came to exist meanwhile: choose another name, or ask for overwriting"));
    } else {
      return PosixError(Describe("renaming"), errno);
    }
  }
  temporary_name_.clear();
  is_in_place_ = true;
  return Retrying(Describe("is in place, but a power cut may undo that: flushing its folder"),
                  [&] { return ::fsync(parent); });
}

absl::StatusOr<UniqueFd> AtomicFile::Unlink() && {
  if (temporary_name_.empty() || failed_) {
    return absl::FailedPreconditionError(Describe("committed or failed before"));
  }
  if (::unlinkat(parent_.get(), temporary_name_.c_str(), 0) != 0) {
    return PosixError(Describe("taking its name away"), errno);
  }
  temporary_name_.clear();
  return std::move(file_);
}

std::string AtomicFile::temporary_path() const {
  return absl::StrCat("/proc/self/fd/", parent_.get(), "/", temporary_name_);
}

namespace {

bool IsFolder(int folder, const dirent& entry) {
  if (entry.d_type != DT_UNKNOWN) return entry.d_type == DT_DIR;
  // Not every file system says.
  struct stat info {};
  return ::fstatat(folder, entry.d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
}

bool RemoveIfStale(int folder, const char* name) {
  const UniqueFd fd(::openat(folder, name, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  return ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0 && ::unlinkat(folder, name, 0) == 0;
}

}  // namespace

absl::StatusOr<int> RemoveStaleTemporaries(int folder_fd, Reach reach) {
  int removed = 0;
  int seen = 0;
  // Paths relative to folder_fd rather than descriptors, of which a deep tree might need too many.
  std::vector<std::string> pending = {"."};
  while (!pending.empty() && ++seen <= kMaxFolders) {
    const std::string path = std::move(pending.back());
    pending.pop_back();
    UniqueFd fd(::openat(folder_fd, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    DIR* stream = fd.valid() ? ::fdopendir(fd.get()) : nullptr;
    if (stream == nullptr) {
      if (path == ".") return PosixError("looking for stale temporary files", errno);
      continue;
    }
    const int folder = fd.release();
    while (const dirent* entry = ::readdir(stream)) {
      const std::string_view name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (reach == Reach::kTree && IsFolder(folder, *entry)) {
        pending.push_back(absl::StrCat(path, "/", entry->d_name));
      }
      if (IsTemporaryName(name) && RemoveIfStale(folder, entry->d_name)) ++removed;
    }
    ::closedir(stream);
  }
  return removed;
}

}  // namespace relight::storage
