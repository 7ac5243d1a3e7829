#include "storage/error.h"

#include <array>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"

namespace relight::storage {
namespace {

constexpr char kPayloadUrl[] = "relight.storage.ErrorCode";

constexpr char kTornUrl[] = "relight.storage.MayBeTorn";

struct Row {
  ErrorCode code;
  std::string_view name;
  // What a file that is still being written, or was cut short, can look like.
  bool may_be_torn;
};

constexpr std::array<Row, 30> kRows = {{
    {ErrorCode::kIoError, "IO_ERROR", false},
    {ErrorCode::kEmptyFile, "EMPTY_FILE", true},
    {ErrorCode::kNotACheckpoint, "NOT_A_CHECKPOINT", false},
    {ErrorCode::kUnsupportedFormat, "UNSUPPORTED_FORMAT", false},
    {ErrorCode::kTorchScriptArchive, "TORCHSCRIPT_ARCHIVE", false},
    {ErrorCode::kZipCorrupt, "ZIP_CORRUPT", true},
    {ErrorCode::kZipUnsupported, "ZIP_UNSUPPORTED", false},
    {ErrorCode::kZipBadName, "ZIP_BAD_NAME", false},
    {ErrorCode::kZipDuplicate, "ZIP_DUPLICATE", false},
    {ErrorCode::kZipOverlap, "ZIP_OVERLAP", false},
    {ErrorCode::kCrcMismatch, "CRC_MISMATCH", true},
    {ErrorCode::kMissingRecord, "MISSING_RECORD", true},
    {ErrorCode::kBadVersion, "BAD_VERSION", false},
    {ErrorCode::kPickleTruncated, "PICKLE_TRUNCATED", true},
    {ErrorCode::kPickleBadOpcode, "PICKLE_BAD_OPCODE", false},
    {ErrorCode::kPickleBadStack, "PICKLE_BAD_STACK", false},
    {ErrorCode::kPickleBadMemo, "PICKLE_BAD_MEMO", false},
    {ErrorCode::kPickleBadValue, "PICKLE_BAD_VALUE", false},
    {ErrorCode::kPickleDuplicateKey, "PICKLE_DUPLICATE_KEY", false},
    {ErrorCode::kPickleCycle, "PICKLE_CYCLE", false},
    {ErrorCode::kUnsafeGlobal, "UNSAFE_GLOBAL", false},
    {ErrorCode::kLimitExceeded, "LIMIT_EXCEEDED", false},
    {ErrorCode::kBadStorageRef, "BAD_STORAGE_REF", false},
    {ErrorCode::kStorageSizeMismatch, "STORAGE_SIZE_MISMATCH", true},
    {ErrorCode::kBadTensorMetadata, "BAD_TENSOR_METADATA", false},
    {ErrorCode::kUnsupportedDType, "UNSUPPORTED_DTYPE", false},
    {ErrorCode::kUnsupportedLayout, "UNSUPPORTED_LAYOUT", false},
    {ErrorCode::kNoStateDict, "NO_STATE_DICT", false},
    {ErrorCode::kSafetensorsInvalid, "SAFETENSORS_INVALID", true},
    {ErrorCode::kIndexInvalid, "INDEX_INVALID", true},
}};

constexpr bool RowsAreInEnumOrder() {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].code) != i) return false;
  }
  return true;
}
static_assert(RowsAreInEnumOrder());

const Row& RowOf(ErrorCode code) { return kRows[static_cast<std::size_t>(code)]; }

absl::StatusCode StatusCodeOf(ErrorCode code) {
  if (code == ErrorCode::kIoError) return absl::StatusCode::kUnavailable;
  if (RowOf(code).may_be_torn) return absl::StatusCode::kDataLoss;
  return absl::StatusCode::kInvalidArgument;
}

}  // namespace

std::string_view Name(ErrorCode code) { return RowOf(code).name; }

absl::Status MakeError(ErrorCode code, std::string_view message) {
  const std::string name(Name(code));
  absl::Status status(StatusCodeOf(code), absl::StrCat(name, ": ", std::string(message)));
  status.SetPayload(kPayloadUrl, absl::Cord(name));
  return status;
}

absl::Status MarkTorn(absl::Status status, bool may_be_torn) {
  status.SetPayload(kTornUrl, absl::Cord(may_be_torn ? "yes" : "no"));
  return status;
}

std::optional<ErrorCode> GetErrorCode(const absl::Status& status) {
  const auto payload = status.GetPayload(kPayloadUrl);
  if (!payload.has_value()) return std::nullopt;
  const std::string name(*payload);
  for (const Row& row : kRows) {
    if (row.name == name) return row.code;
  }
  return std::nullopt;
}

bool MayBeTorn(const absl::Status& status) {
  if (const auto marked = status.GetPayload(kTornUrl); marked.has_value()) return *marked == "yes";
  const std::optional<ErrorCode> code = GetErrorCode(status);
  return code.has_value() && RowOf(*code).may_be_torn;
}

bool IsTransient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsResourceExhausted(status);
}

}  // namespace relight::storage
