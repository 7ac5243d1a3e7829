#include "storage/zip_index.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/bytes.h"
#include "storage/error.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kEnd64Bytes = 56;
constexpr std::uint64_t kLocator64Bytes = 20;
constexpr std::uint64_t kCentralBytes = 46;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kMaxNameBytes = 1024;
constexpr std::uint64_t kMaxDirectoryBytes = std::uint64_t{256} << 20;

constexpr std::uint32_t kEndSignature = 0x06054B50;
constexpr std::uint32_t kEnd64Signature = 0x06064B50;
constexpr std::uint32_t kLocator64Signature = 0x07064B50;
constexpr std::uint32_t kCentralSignature = 0x02014B50;
constexpr std::uint32_t kLocalSignature = 0x04034B50;
constexpr std::uint32_t kDescriptorSignature = 0x08074B50;

constexpr std::uint16_t kFlagDescriptor = 1u << 3;
// Compression level hints (bits 1, 2), descriptor, UTF-8 names. All else changes how the bytes are
// to be read.
constexpr std::uint16_t kAllowedFlags = (1u << 1) | (1u << 2) | kFlagDescriptor | (1u << 11);
constexpr std::uint16_t kZip64Id = 1;

std::uint16_t U16(std::string_view bytes, std::size_t at) {
  return LoadLittle<std::uint16_t>(bytes.data() + at);
}
std::uint32_t U32(std::string_view bytes, std::size_t at) {
  return LoadLittle<std::uint32_t>(bytes.data() + at);
}
std::uint64_t U64(std::string_view bytes, std::size_t at) {
  return LoadLittle<std::uint64_t>(bytes.data() + at);
}

// Walks the blocks of an extra field. Nullopt where they do not fill it exactly; else whether there
// is a zip64 block, and what it holds.
struct Extra {
  bool has_zip64 = false;
  std::string_view zip64;
};
std::optional<Extra> ParseExtra(std::string_view extra) {
  Extra result;
  while (!extra.empty()) {
    if (extra.size() < 4) return std::nullopt;
    const std::uint16_t id = U16(extra, 0);
    const std::size_t length = U16(extra, 2);
    extra.remove_prefix(4);
    if (length > extra.size()) return std::nullopt;
    if (id == kZip64Id) {
      if (result.has_zip64) return std::nullopt;
      result = {true, extra.substr(0, length)};
    }
    extra.remove_prefix(length);
  }
  return result;
}

bool HasBadComponent(std::string_view name) {
  std::size_t begin = 0;
  while (begin <= name.size()) {
    const std::size_t slash = std::min(name.find('/', begin), name.size());
    const std::string_view component = name.substr(begin, slash - begin);
    const bool trailing = slash == name.size() && begin == name.size() && begin > 0;
    if (component == "." || component == ".." || (component.empty() && !trailing)) return true;
    begin = slash + 1;
  }
  return false;
}

// Empty where the name may stand; else what is wrong with it.
std::string_view NameProblem(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > kMaxNameBytes) return "is longer than 1024 bytes";
  if (!IsUtf8(name)) return "is not UTF-8";
  if (name.find_first_of(std::string_view("\0\\:", 3)) != std::string_view::npos) {
    return "holds a NUL, backslash or colon";
  }
  if (name.front() == '/') return "is absolute";
  if (HasBadComponent(name)) return "has an empty, '.' or '..' component";
  return {};
}

}  // namespace

// One pass over one file; not reused.
class ZipIndexReader {
 public:
  ZipIndexReader(const InputFile& file, const ReadOptions& options)
      : file_(file), options_(options) {}

  absl::StatusOr<ZipIndex> Read() {
    RELIGHT_RETURN_IF_ERROR(ReadEnd());
    RELIGHT_RETURN_IF_ERROR(ReadDirectory());
    RELIGHT_RETURN_IF_ERROR(IndexNames());
    for (ZipEntry& entry : index_.entries_) RELIGHT_RETURN_IF_ERROR(ReadLocalHeader(entry));
    RELIGHT_RETURN_IF_ERROR(CheckTiling());
    RELIGHT_RETURN_IF_ERROR(CheckMethods());
    return std::move(index_);
  }

 private:
  absl::Status Error(ErrorCode code, std::string_view message) const {
    return MakeError(code, absl::StrCat(file_.shown_name(), ": ", std::string(message)));
  }
  absl::Status Corrupt(std::string_view message) const {
    return Error(ErrorCode::kZipCorrupt, message);
  }
  absl::Status EntryError(ErrorCode code, const ZipEntry& entry, std::string_view message) const {
    return Error(code, absl::StrCat("entry ", Escape(entry.name), " at byte ", entry.header_offset,
                                    ": ", std::string(message)));
  }

  absl::Status ReadEnd() {
    const std::uint64_t size = file_.size_bytes();
    if (size < kEndBytes) return Corrupt("is too short for a zip file: it was cut off");
    RELIGHT_ASSIGN_OR_RETURN(const std::string end, file_.ReadText(size - kEndBytes, kEndBytes));
    if (U32(end, 0) != kEndSignature) {
      return Corrupt(
          "has no zip end record as its last 22 bytes: it was cut off, or something was "
          "appended to it");
    }
    if (U16(end, 20) != 0) return Corrupt("has an archive comment, which torch.save never writes");
    if (U16(end, 4) != 0 || U16(end, 6) != 0) return Corrupt("is part of a multi-disk archive");
    if (U16(end, 8) != U16(end, 10)) return Corrupt("has two different entry counts");
    count_ = U16(end, 10);
    directory_bytes_ = U32(end, 12);
    directory_offset_ = U32(end, 16);
    std::uint64_t ends_at = size - kEndBytes;
    RELIGHT_RETURN_IF_ERROR(ReadEnd64(ends_at));
    const std::optional<std::uint64_t> directory_end =
        CheckedAdd(directory_offset_, directory_bytes_);
    if (!directory_end.has_value() || *directory_end != ends_at) {
      return Corrupt("has a directory that does not end where the end record begins");
    }
    if (count_ > directory_bytes_ / kCentralBytes) {
      return Corrupt("claims more entries than its directory can hold");
    }
    if (count_ > options_.limits.max_entries) {
      return Error(
          ErrorCode::kLimitExceeded,
          absl::StrCat("has ", count_, " entries, the limit is ", options_.limits.max_entries));
    }
    if (directory_bytes_ > kMaxDirectoryBytes) {
      return Error(ErrorCode::kLimitExceeded,
                   absl::StrCat("has a directory of ", directory_bytes_, " bytes, the limit is ",
                                kMaxDirectoryBytes));
    }
    if (count_ == 0) return Error(ErrorCode::kMissingRecord, "is a zip file without entries");
    return absl::OkStatus();
  }

  // Takes the values of the zip64 end record where there is one, and moves `ends_at` to its start.
  absl::Status ReadEnd64(std::uint64_t& ends_at) {
    if (ends_at < kLocator64Bytes) return absl::OkStatus();
    RELIGHT_ASSIGN_OR_RETURN(const std::string locator,
                             file_.ReadText(ends_at - kLocator64Bytes, kLocator64Bytes));
    if (U32(locator, 0) != kLocator64Signature) return absl::OkStatus();
    const std::uint64_t locator_at = ends_at - kLocator64Bytes;
    if (U32(locator, 4) != 0 || U32(locator, 16) != 1) {
      return Corrupt("is part of a multi-disk archive");
    }
    if (locator_at < kEnd64Bytes || U64(locator, 8) != locator_at - kEnd64Bytes) {
      return Corrupt("has a zip64 locator that points elsewhere than at the record before it");
    }
    ends_at = locator_at - kEnd64Bytes;
    RELIGHT_ASSIGN_OR_RETURN(const std::string end, file_.ReadText(ends_at, kEnd64Bytes));
    if (U32(end, 0) != kEnd64Signature || U64(end, 4) != kEnd64Bytes - 12) {
      return Corrupt("has no zip64 end record where its locator points");
    }
    if (U32(end, 16) != 0 || U32(end, 20) != 0) return Corrupt("is part of a multi-disk archive");
    if (U64(end, 24) != U64(end, 32)) return Corrupt("has two different entry counts");
    const auto agrees = [](std::uint64_t classic, std::uint64_t ones, std::uint64_t real) {
      return classic == real || classic == ones;
    };
    if (!agrees(count_, 0xFFFF, U64(end, 32)) ||
        !agrees(directory_bytes_, 0xFFFFFFFF, U64(end, 40)) ||
        !agrees(directory_offset_, 0xFFFFFFFF, U64(end, 48))) {
      return Corrupt("has end records that disagree");
    }
    count_ = U64(end, 32);
    directory_bytes_ = U64(end, 40);
    directory_offset_ = U64(end, 48);
    return absl::OkStatus();
  }

  absl::Status ReadDirectory() {
    RELIGHT_ASSIGN_OR_RETURN(const std::string directory,
                             file_.ReadText(directory_offset_, directory_bytes_));
    std::string_view rest = directory;
    for (std::uint64_t i = 0; i < count_; ++i) RELIGHT_RETURN_IF_ERROR(ReadCentral(rest));
    if (!rest.empty()) return Corrupt("has more in its directory than the end record counts");
    return absl::OkStatus();
  }

  absl::Status ReadCentral(std::string_view& rest) {
    if (rest.size() < kCentralBytes || U32(rest, 0) != kCentralSignature) {
      return Corrupt(absl::StrCat("has no directory entry at byte ",
                                  directory_offset_ + directory_bytes_ - rest.size()));
    }
    const std::size_t name_bytes = U16(rest, 28);
    const std::size_t extra_bytes = U16(rest, 30);
    const std::size_t comment_bytes = U16(rest, 32);
    const std::string_view head = rest.substr(0, kCentralBytes);
    if (rest.size() - kCentralBytes < name_bytes + extra_bytes + comment_bytes) {
      return Corrupt("has a directory entry that reaches beyond the directory");
    }
    const std::string_view name = rest.substr(kCentralBytes, name_bytes);
    const std::string_view extra = rest.substr(kCentralBytes + name_bytes, extra_bytes);
    rest.remove_prefix(kCentralBytes + name_bytes + extra_bytes + comment_bytes);

    ZipEntry entry;
    entry.flags = U16(head, 8);
    entry.method = U16(head, 10);
    entry.crc32 = U32(head, 16);
    entry.compressed_bytes = U32(head, 20);
    entry.size_bytes = U32(head, 24);
    entry.header_offset = U32(head, 42);
    entry.name = std::string(name);
    if (comment_bytes != 0) {
      return EntryError(ErrorCode::kZipCorrupt, entry, "has a comment");
    }
    if ((entry.flags & ~kAllowedFlags) != 0) {
      return EntryError(ErrorCode::kZipUnsupported, entry,
                        absl::StrCat("has zip flags ", entry.flags,
                                     " (encrypted or masked entries are not read)"));
    }
    constexpr std::uint8_t kMadeByUnix = 3;
    constexpr std::uint32_t kTypeMask = 0170000;
    constexpr std::uint32_t kSymlink = 0120000;
    if (static_cast<std::uint8_t>(head[5]) == kMadeByUnix &&
        ((U32(head, 38) >> 16) & kTypeMask) == kSymlink) {
      return EntryError(ErrorCode::kZipUnsupported, entry, "is a symbolic link");
    }
    if (U16(head, 34) != 0) return EntryError(ErrorCode::kZipCorrupt, entry, "is on another disk");
    RELIGHT_RETURN_IF_ERROR(ApplyZip64(extra, entry));
    if (entry.method == 0 && entry.compressed_bytes != entry.size_bytes) {
      return EntryError(ErrorCode::kZipCorrupt, entry, "is stored but has two different sizes");
    }
    RELIGHT_RETURN_IF_ERROR(CheckName(name, entry));
    index_.entries_.push_back(std::move(entry));
    return absl::OkStatus();
  }

  absl::Status ApplyZip64(std::string_view extra, ZipEntry& entry) const {
    constexpr std::uint64_t kPlaceholder = 0xFFFFFFFF;
    const std::optional<Extra> parsed = ParseExtra(extra);
    if (!parsed.has_value()) {
      return EntryError(ErrorCode::kZipCorrupt, entry, "has a malformed extra field");
    }
    std::string_view block = parsed->zip64;
    for (std::uint64_t* field :
         {&entry.size_bytes, &entry.compressed_bytes, &entry.header_offset}) {
      if (*field != kPlaceholder) continue;
      if (block.size() < 8) {
        return EntryError(ErrorCode::kZipCorrupt, entry,
                          "lacks the zip64 values that it announces");
      }
      *field = U64(block, 0);
      block.remove_prefix(8);
    }
    return absl::OkStatus();
  }

  // Checks a whole name and strips the root folder from the entry's.
  absl::Status CheckName(std::string_view name, ZipEntry& entry) {
    if (const std::string_view problem = NameProblem(name); !problem.empty()) {
      return EntryError(ErrorCode::kZipBadName, entry,
                        absl::StrCat("its name ", std::string(problem)));
    }
    const std::size_t slash = name.find('/');
    if (slash == std::string_view::npos) {
      return EntryError(ErrorCode::kZipBadName, entry,
                        "is not in a root folder, as every record of torch.save is");
    }
    const std::string_view root = name.substr(0, slash);
    if (index_.entries_.empty()) {
      root_ = std::string(root);
    } else if (root != root_) {
      return EntryError(ErrorCode::kZipBadName, entry,
                        absl::StrCat("is outside of the root folder ", Escape(root_)));
    }
    if (name.back() == '/' && entry.size_bytes != 0) {
      return EntryError(ErrorCode::kZipBadName, entry, "is a folder that carries data");
    }
    entry.name = std::string(name.substr(slash + 1));
    return absl::OkStatus();
  }

  absl::Status IndexNames() {
    std::vector<std::uint32_t>& order = index_.by_name_;
    order.resize(index_.entries_.size());
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    const auto name = [this](std::uint32_t i) -> const std::string& {
      return index_.entries_[i].name;
    };
    std::sort(order.begin(), order.end(),
              [&](std::uint32_t a, std::uint32_t b) { return name(a) < name(b); });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (name(order[i - 1]) == name(order[i])) {
        return EntryError(ErrorCode::kZipDuplicate, index_.entries_[order[i]],
                          "its name occurs twice");
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadLocalHeader(ZipEntry& entry) const {
    const auto corrupt = [&](std::string_view message) {
      return EntryError(ErrorCode::kZipCorrupt, entry, message);
    };
    const std::string full_name = absl::StrCat(root_, "/", entry.name);
    if (entry.header_offset > directory_offset_ ||
        directory_offset_ - entry.header_offset < kLocalBytes + full_name.size()) {
      return corrupt("begins outside of the data area");
    }
    RELIGHT_ASSIGN_OR_RETURN(const std::string header,
                             file_.ReadText(entry.header_offset, kLocalBytes + full_name.size()));
    if (U32(header, 0) != kLocalSignature) return corrupt("has no local header");
    if (U16(header, 6) != entry.flags || U16(header, 8) != entry.method) {
      return corrupt("has other flags or another method in its local header than in the directory");
    }
    if (U16(header, 26) != full_name.size() ||
        std::string_view(header).substr(kLocalBytes) != full_name) {
      return corrupt("has another name in its local header than in the directory");
    }
    const std::uint64_t extra_bytes = U16(header, 28);
    const std::uint64_t extra_at = entry.header_offset + header.size();
    if (directory_offset_ - extra_at < extra_bytes) return corrupt("its header is cut off");
    RELIGHT_ASSIGN_OR_RETURN(const std::string extra, file_.ReadText(extra_at, extra_bytes));
    const std::optional<Extra> parsed = ParseExtra(extra);
    if (!parsed.has_value()) return corrupt("has a malformed extra field in its local header");
    entry.data_offset = extra_at + extra_bytes;
    if (directory_offset_ - entry.data_offset < entry.compressed_bytes) {
      return corrupt(absl::StrCat("claims ", entry.compressed_bytes,
                                  " bytes, which reach beyond the data area"));
    }
    entry.end_offset = entry.data_offset + entry.compressed_bytes;
    RELIGHT_RETURN_IF_ERROR(CheckLocalSizes(header, parsed->has_zip64, entry));
    if ((entry.flags & kFlagDescriptor) == 0) return absl::OkStatus();
    return ReadDescriptor(parsed->has_zip64, entry);
  }

  absl::Status CheckLocalSizes(std::string_view header, bool has_zip64,
                               const ZipEntry& entry) const {
    const bool described = (entry.flags & kFlagDescriptor) != 0;
    const auto agrees = [&](std::uint32_t local, std::uint64_t central) {
      return local == central || (described && local == 0) || (has_zip64 && local == 0xFFFFFFFF);
    };
    const std::uint32_t crc = U32(header, 14);
    if (crc != entry.crc32 && !(described && crc == 0)) {
      return EntryError(ErrorCode::kCrcMismatch, entry,
                        "has another CRC-32 in its local header than in the directory");
    }
    if (!agrees(U32(header, 18), entry.compressed_bytes) ||
        !agrees(U32(header, 22), entry.size_bytes)) {
      return EntryError(ErrorCode::kZipCorrupt, entry,
                        "has other sizes in its local header than in the directory");
    }
    return absl::OkStatus();
  }

  absl::Status ReadDescriptor(bool wide, ZipEntry& entry) const {
    const std::uint64_t bytes = wide ? 24 : 16;
    if (directory_offset_ - entry.end_offset < bytes) {
      return EntryError(ErrorCode::kZipCorrupt, entry, "has no data descriptor");
    }
    RELIGHT_ASSIGN_OR_RETURN(const std::string descriptor, file_.ReadText(entry.end_offset, bytes));
    const std::uint64_t compressed = wide ? U64(descriptor, 8) : U32(descriptor, 8);
    const std::uint64_t size = wide ? U64(descriptor, 16) : U32(descriptor, 12);
    if (U32(descriptor, 0) != kDescriptorSignature || compressed != entry.compressed_bytes ||
        size != entry.size_bytes) {
      return EntryError(ErrorCode::kZipCorrupt, entry,
                        "has no data descriptor behind its data that agrees with the directory");
    }
    if (U32(descriptor, 4) != entry.crc32) {
      return EntryError(ErrorCode::kCrcMismatch, entry,
                        "has another CRC-32 in its data descriptor than in the directory");
    }
    entry.end_offset += bytes;
    return absl::OkStatus();
  }

  absl::Status CheckTiling() const {
    std::vector<std::uint32_t> order(index_.entries_.size());
    std::iota(order.begin(), order.end(), std::uint32_t{0});
    std::sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
      return index_.entries_[a].header_offset < index_.entries_[b].header_offset;
    });
    std::uint64_t at = 0;
    for (const std::uint32_t i : order) {
      const ZipEntry& entry = index_.entries_[i];
      if (entry.header_offset < at) {
        return EntryError(ErrorCode::kZipOverlap, entry, "overlaps the entry before it");
      }
      if (entry.header_offset > at && !options_.zip_allow_gaps) {
        return EntryError(ErrorCode::kZipCorrupt, entry,
                          absl::StrCat("there are unlisted bytes before it, from byte ", at));
      }
      at = entry.end_offset;
    }
    if (at != directory_offset_ && !options_.zip_allow_gaps) {
      return Corrupt(absl::StrCat("has unlisted bytes before its directory, from byte ", at));
    }
    return absl::OkStatus();
  }

  absl::Status CheckMethods() const {
    if (index_.IsTorchScript()) return absl::OkStatus();
    for (const ZipEntry& entry : index_.entries_) {
      if (entry.method == 0) continue;
      return EntryError(ErrorCode::kZipUnsupported, entry,
                        "is compressed: the archive was repacked; save it again with torch.save");
    }
    return absl::OkStatus();
  }

  const InputFile& file_;
  const ReadOptions& options_;
  ZipIndex index_;
  std::string root_;
  std::uint64_t count_ = 0;
  std::uint64_t directory_bytes_ = 0;
  std::uint64_t directory_offset_ = 0;
};

absl::StatusOr<ZipIndex> ZipIndex::Read(const InputFile& file, const ReadOptions& options) {
  return ZipIndexReader(file, options).Read();
}

const ZipEntry* ZipIndex::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [this](std::uint32_t i, std::string_view wanted) { return entries_[i].name < wanted; });
  if (found == by_name_.end() || entries_[*found].name != name) return nullptr;
  return &entries_[*found];
}

}  // namespace relight::storage
