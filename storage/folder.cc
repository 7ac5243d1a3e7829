#include "storage/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"
#include "storage/candidate_names.h"
#include "storage/error.h"
#include "storage/posix_error.h"

namespace relight::storage {
namespace {

constexpr std::size_t kMaxIndexBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxShards = 10'000;
constexpr std::size_t kMaxShownPathBytes = 1024;

std::string ReasonByType(mode_t mode) {
  if (S_ISFIFO(mode)) return "is a FIFO, not a regular file";
  if (S_ISSOCK(mode)) return "is a socket, not a regular file";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "is a device, not a regular file";
  return S_ISREG(mode) ? "" : "is not a regular file";
}

// Whether a failure says something about the entry for good, rather than about the moment.
bool IsPermanent(int error) {
  return error == EACCES || error == EPERM || error == ELOOP || error == ENOENT ||
         error == ENOTDIR || error == ENAMETOOLONG;
}

// Collects the distinct strings below "weight_map" at the top of an index. Streaming, so that a
// large index costs no more than its shards' names.
class ShardNames final : public nlohmann::json_sax<nlohmann::json> {
 public:
  const std::set<std::string>& names() const { return names_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool string(string_t& value) override {
    if (in_map_ && depth_ == 2) names_.insert(value);
    return names_.size() <= kMaxShards;
  }
  bool start_object(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& key) override {
    if (depth_ == 1) in_map_ = key == "weight_map";
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  bool Enter() { return ++depth_ <= 8; }
  bool Leave() {
    --depth_;
    return true;
  }

  int depth_ = 0;
  bool in_map_ = false;
  std::set<std::string> names_;
};

// Names of the shards of an index; none where it cannot be read or is not one (opening it as a
// checkpoint says why).
std::set<std::string> ReadShardNames(int folder_fd, const std::string& name) {
  const UniqueFd fd(
      ::openat(folder_fd, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  struct stat info {};
  if (!fd.valid() || ::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return {};
  if (info.st_size < 0 || static_cast<std::uint64_t>(info.st_size) > kMaxIndexBytes) return {};
  std::string text(static_cast<std::size_t>(info.st_size), '\0');
  std::size_t got = 0;
  while (got < text.size()) {
    const ssize_t n =
        ::pread(fd.get(), text.data() + got, text.size() - got, static_cast<off_t>(got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return {};
    got += static_cast<std::size_t>(n);
  }
  ShardNames shards;
  if (!nlohmann::json::sax_parse(text, &shards)) return {};
  return shards.names();
}

// One listing of one folder, and where each name leads.
struct Listing {
  struct Item {
    std::string reason;  // Empty: a regular file or a folder.
    struct stat info {};
    std::set<std::string> shards;  // Of an index.
  };
  std::map<std::string, Item> items;

  // REQUIRES: `name` is a candidate, so its shards are listed.
  FileIdentity Identify(const std::string& name) const {
    const Item& item = items.at(name);
    std::vector<FileIdentity> parts = {IdentityOf(item.info)};
    for (const std::string& shard : item.shards) parts.push_back(IdentityOf(items.at(shard).info));
    return IdentityOfAll(parts);
  }
};

// Fills `item`; false where the name vanished since it was listed. What stands in the way of one
// name (a dead mount, a stale handle) must not hide the others.
bool Examine(int folder_fd, const std::string& name, Listing::Item& item) {
  item.reason = WhyNotByName(name);
  if (!item.reason.empty()) return true;
  if (::fstatat(folder_fd, name.c_str(), &item.info, 0) == 0) {
    if (!S_ISDIR(item.info.st_mode)) item.reason = ReasonByType(item.info.st_mode);
    return true;
  }
  const int error = errno;
  struct stat link {};
  if (::fstatat(folder_fd, name.c_str(), &link, AT_SYMLINK_NOFOLLOW) != 0) return errno != ENOENT;
  if (error == ELOOP) {
    item.reason = "is a symlink loop";
  } else if (error == ENOENT || error == ENOTDIR) {
    item.reason = "is a symlink to nothing";
  } else {
    item.reason = absl::StrCat("cannot be looked at", IsPermanent(error) ? "" : " just now", ": ",
                               ErrorText(error));
  }
  return true;
}

absl::StatusOr<std::vector<std::string>> ListNames(int folder_fd) {
  // fdopendir takes over its descriptor and moves its position: give it one of its own.
  UniqueFd own(::openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!own.valid()) return PosixError("opening the folder", errno);
  DIR* stream = ::fdopendir(own.get());
  if (stream == nullptr) return PosixError("listing the folder", errno);
  own.release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) return PosixError("listing the folder", error);
  return names;
}

absl::StatusOr<Listing> List(int folder_fd) {
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListNames(folder_fd));
  Listing listing;
  for (const std::string& name : names) {
    Listing::Item item;
    if (Examine(folder_fd, name, item)) listing.items.emplace(name, std::move(item));
  }
  return listing;
}

// Turns what indexes say into reasons: for their shards, and for indexes whose shards are missing.
void ApplyIndexes(int folder_fd, Listing& listing) {
  for (auto& [name, item] : listing.items) {
    if (!item.reason.empty() || !S_ISREG(item.info.st_mode) || !IsIndex(name)) continue;
    item.shards = ReadShardNames(folder_fd, name);
    for (const std::string& shard : item.shards) {
      const auto found = listing.items.find(shard);
      if (found == listing.items.end()) {
        if (item.reason.empty()) {
          item.reason = absl::StrCat("waits for its shard ", Escape(shard));
        }
      } else if (found->second.reason.empty() && shard != name) {
        found->second.reason = absl::StrCat("is a shard of ", Escape(name));
      }
    }
  }
}

// Why a regular file is no candidate; empty for one.
std::string JudgeFile(int folder_fd, const std::string& name) {
  if (!HasCandidateSuffix(name) && !IsIndex(name)) {
    return absl::StrCat("has none of the suffixes ", kWholeFileSuffixes, " .index.json");
  }
  if (LooksLikeShard(name)) return "is a shard: its index leads to it";
  if (::faccessat(folder_fd, name.c_str(), R_OK, AT_EACCESS) != 0) {
    return absl::StrCat("cannot be read: ", ErrorText(errno));
  }
  return "";
}

// What a folder that stands for one checkpoint holds.
struct Survey {
  std::string problem;  // "cannot be listed: why"; else empty.
  std::vector<std::string> candidates;
  FileIdentity identity;  // Of the last candidate.
  std::string why_none;   // " (name reason)" of what comes closest to one.
  bool distributed = false;
};

Survey SurveyFolder(int parent_fd, const std::string& name) {
  Survey survey;
  const UniqueFd fd(::openat(parent_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    survey.problem = absl::StrCat("cannot be listed: ", ErrorText(errno));
    return survey;
  }
  absl::StatusOr<Listing> listed = List(fd.get());
  if (!listed.ok()) {
    survey.problem =
        absl::StrCat("cannot be listed just now: ", std::string(listed.status().message()));
    return survey;
  }
  Listing& listing = *listed;
  ApplyIndexes(fd.get(), listing);
  for (const auto& [file, item] : listing.items) {
    survey.distributed = survey.distributed || file.ends_with(".distcp");
    if (S_ISDIR(item.info.st_mode) || IsHelper(file)) continue;
    if (!HasCandidateSuffix(file) && !IsIndex(file)) continue;
    const std::string reason = item.reason.empty() ? JudgeFile(fd.get(), file) : item.reason;
    if (reason.empty()) {
      survey.candidates.push_back(file);
      survey.identity = listing.Identify(file);
    } else if (survey.why_none.empty() || IsIndex(file)) {
      // What holds an index up says more than that its shards are shards.
      survey.why_none = absl::StrCat(" (", Escape(file), " ", reason, ")");
    }
  }
  return survey;
}

constexpr char kIsDistributed[] =
    "is a torch.distributed.checkpoint folder: convert it with dcp_to_torch_save first";

std::string WithSeveral(const std::vector<std::string>& candidates) {
  return absl::StrCat("is a folder with ", candidates.size(), " checkpoints (",
                      Escape(absl::StrJoin(candidates, ", ")), ")");
}

// Judges the folder `name` below `parent_fd` by what it holds.
FolderEntry JudgeSubfolder(int parent_fd, const std::string& name) {
  FolderEntry entry;
  entry.name = name;
  entry.stem = name;
  const Survey survey = SurveyFolder(parent_fd, name);
  if (!survey.problem.empty()) {
    entry.reason = absl::StrCat("is a folder that ", survey.problem);
  } else if (survey.candidates.size() == 1) {
    entry.name = absl::StrCat(name, "/", survey.candidates.front());
    entry.candidate = true;
    entry.identity = survey.identity;
  } else if (survey.distributed) {
    entry.reason = kIsDistributed;
  } else if (survey.candidates.empty()) {
    entry.reason = absl::StrCat("is a folder without a checkpoint", survey.why_none);
  } else {
    entry.reason = absl::StrCat(WithSeveral(survey.candidates), ": leave one");
  }
  return entry;
}

FolderEntry Judge(int folder_fd, const std::string& name, const Listing& listing) {
  const Listing::Item& item = listing.items.at(name);
  FolderEntry entry;
  entry.name = name;
  entry.stem = CandidateStem(name);
  entry.reason = item.reason;
  if (!entry.reason.empty()) return entry;
  if (S_ISDIR(item.info.st_mode)) {
    if (!HasCandidateSuffix(name) && !IsIndex(name)) return JudgeSubfolder(folder_fd, name);
    entry.reason = "is a folder with the suffix of a file";
    return entry;
  }
  entry.reason = JudgeFile(folder_fd, name);
  entry.candidate = entry.reason.empty();
  if (entry.candidate) entry.identity = listing.Identify(name);
  return entry;
}

absl::StatusOr<std::vector<FolderEntry>> ScanOpenFolder(int folder_fd) {
  RELIGHT_ASSIGN_OR_RETURN(Listing listing, List(folder_fd));
  ApplyIndexes(folder_fd, listing);
  std::vector<FolderEntry> entries;
  for (const auto& [name, item] : listing.items) {
    entries.push_back(Judge(folder_fd, name, listing));
  }
  std::sort(entries.begin(), entries.end(),
            [](const FolderEntry& a, const FolderEntry& b) { return a.name < b.name; });
  return entries;
}

std::string Join(std::string_view folder, const std::string& name) {
  return absl::StrCat(std::string(folder), folder.ends_with('/') ? "" : "/", name);
}

}  // namespace

absl::StatusOr<std::string> LocateCheckpoint(const std::string& path) {
  struct stat info {};
  // What cannot be looked at cannot be opened either: opening it says why.
  if (::stat(path.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return path;
  const std::string shown = Escape(path, kMaxShownPathBytes);
  const Survey survey = SurveyFolder(AT_FDCWD, path);
  if (!survey.problem.empty()) {
    return absl::UnavailableError(absl::StrCat(shown, " ", survey.problem));
  }
  if (survey.candidates.size() == 1) return Join(path, survey.candidates.front());
  if (survey.distributed) {
    return MakeError(ErrorCode::kUnsupportedFormat, absl::StrCat(shown, ": ", kIsDistributed));
  }
  if (!survey.candidates.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(shown, " ", WithSeveral(survey.candidates), ": name one of them"));
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::vector<FolderEntry> entries, ScanFolder(path));
  std::vector<std::string> below;
  for (const FolderEntry& entry : entries) {
    if (entry.candidate && entry.name.find('/') != std::string::npos) below.push_back(entry.name);
  }
  if (below.size() == 1) return Join(path, below.front());
  if (!below.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(shown, " ", WithSeveral(below), ": name one of them"));
  }
  return absl::NotFoundError(
      absl::StrCat(shown, " is a folder without a checkpoint", survey.why_none));
}

absl::StatusOr<std::vector<FolderEntry>> ScanFolder(const std::string& folder) {
  const std::string what = absl::StrCat("folder ", Escape(folder));
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOENT) return absl::NotFoundError(absl::StrCat(what, " does not exist"));
    return absl::UnavailableError(absl::StrCat(what, ": ", ErrorText(errno)));
  }
  absl::StatusOr<std::vector<FolderEntry>> entries = ScanOpenFolder(fd.get());
  if (entries.ok()) return entries;
  return absl::UnavailableError(absl::StrCat(what, ": ", entries.status().message()));
}

}  // namespace relight::storage
