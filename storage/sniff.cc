// Which format a file is in, by its first bytes; foreign formats are named.
#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "storage/bytes.h"
#include "storage/container.h"
#include "storage/error.h"

namespace relight::storage {
namespace {

using std::string_view_literals::operator""sv;

struct Foreign {
  std::size_t offset;
  std::string_view magic;
  std::string_view description;
};

constexpr Foreign kForeign[] = {
    {0, "PYTORCH1"sv, "the container of the PyTorch 1.0 preview"},
    {0, "\x1F\x8B"sv, "gzip-compressed; decompress it"},
    {0, "BZh"sv, "bzip2-compressed; decompress it"},
    {0, "\xFD\x37\x7A\x58\x5A"sv, "xz-compressed; decompress it"},
    {0, "\x37\x7A\xBC\xAF\x27\x1C"sv, "a 7z archive; unpack it"},
    {0, "\x28\xB5\x2F\xFD"sv, "zstd-compressed; decompress it"},
    {0, "\x89\x48\x44\x46"sv, "an HDF5 file (Keras?), not a PyTorch checkpoint"},
    {0, "GGUF"sv, "a GGUF file, not a PyTorch checkpoint"},
    {0, "\x93NUMPY"sv, "a numpy array, not a PyTorch checkpoint"},
    {4, "PTMF"sv, "a mobile (flatbuffer) TorchScript model; save a state dict with torch.save"},
    {0, "version https://git-lfs"sv,
     "a git-lfs pointer: the large file itself was never fetched; run git lfs pull"},
    {257, "ustar"sv, "the tar layout of torch before 0.1.10, or another tar archive"},
};

bool HasAt(std::string_view head, std::size_t offset, std::string_view magic) {
  return head.size() >= offset + magic.size() && head.substr(offset, magic.size()) == magic;
}

// The first pickle of the stream format holds nothing but this number.
bool IsLegacyStream(std::string_view head) {
  constexpr std::string_view kMagic = "\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19\x2E"sv;
  constexpr std::size_t kFrameBytes = 9;
  if (head.size() < 2 || head[1] < 2 || head[1] > 5) return false;
  const bool framed = head[1] >= 4 && HasAt(head, 2, "\x95"sv);
  return HasAt(head, framed ? 2 + kFrameBytes : 2, kMagic);
}

// What a file that will be one of ours looks like before it is: room that was set aside and not
// written to yet, or the first few bytes.
bool LooksUnwritten(std::string_view head) {
  constexpr std::size_t kLongestStart = 24;
  if (head.find_first_not_of('\0') == std::string_view::npos) return true;
  return head.size() < kLongestStart && ("PK\x03\x04"sv.starts_with(head) || head[0] == '\x80');
}

bool LooksLikeIndex(std::string_view head, const std::string& path) {
  if (!path.ends_with(".json")) return false;
  const std::size_t first = head.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && head[first] == '{';
}

}  // namespace

absl::StatusOr<Format> SniffFormat(const InputFile& file, const std::string& path) {
  constexpr std::uint64_t kHeadBytes = 512;
  RELIGHT_ASSIGN_OR_RETURN(const std::string head,
                           file.ReadText(0, std::min(kHeadBytes, file.size_bytes())));
  const auto error = [&](ErrorCode code, std::string_view message) {
    absl::Status status =
        MakeError(code, absl::StrCat(file.shown_name(), ": ", std::string(message)));
    return LooksUnwritten(head) ? MarkTorn(std::move(status), true) : status;
  };
  if (head.empty()) return error(ErrorCode::kEmptyFile, "is empty");
  if (HasAt(head, 0, "PK\x03\x04"sv)) return Format::kZip;
  if (HasAt(head, 0, "PK\x05\x06"sv)) {
    return error(ErrorCode::kMissingRecord, "is a zip file without entries");
  }
  if (HasAt(head, 8, "{"sv) && LoadLittle<std::uint64_t>(head.data()) <= file.size_bytes() - 8) {
    return Format::kSafetensors;
  }
  for (const Foreign& foreign : kForeign) {
    if (!HasAt(head, foreign.offset, foreign.magic)) continue;
    return error(ErrorCode::kUnsupportedFormat,
                 absl::StrCat("is ", std::string(foreign.description)));
  }
  if (head[0] == '\x80') {
    if (IsLegacyStream(head)) return Format::kLegacyStream;
    return error(ErrorCode::kUnsupportedFormat, "is a plain pickle, not a torch.save file");
  }
  if (LooksLikeIndex(head, path)) return Format::kShardedIndex;
  if (path.ends_with(".safetensors")) {
    return error(ErrorCode::kSafetensorsInvalid,
                 "does not begin with the length of a JSON header that fits the file");
  }
  return error(ErrorCode::kNotACheckpoint,
               "is nothing that torch.save or safetensors writes: its first bytes are unknown");
}

absl::StatusOr<Contents> ReadSingleFile(const InputFile& file, Format format,
                                        const ReadOptions& options) {
  switch (format) {
    case Format::kZip:
      return ReadZip(file, options);
    case Format::kLegacyStream:
      return ReadLegacyStream(file, options);
    case Format::kSafetensors:
      return ReadSafetensors(file, options);
    case Format::kShardedIndex:
      break;
  }
  return MakeError(ErrorCode::kIndexInvalid,
                   absl::StrCat(file.shown_name(), ": is an index where a shard belongs"));
}

}  // namespace relight::storage
