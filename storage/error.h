// Why a file was refused, as a code that callers and tests can name.
//
// Every refusal of the storage layer is an absl::Status that carries one of these as a payload; its
// message reads "CODE: file name: where: what, and what to do". Names from the file are escaped.
#ifndef RELIGHT_STORAGE_ERROR_H_
#define RELIGHT_STORAGE_ERROR_H_

#include <optional>
#include <string_view>

#include "absl/status/status.h"

namespace relight::storage {

enum class ErrorCode {
  kIoError,
  kEmptyFile,
  kNotACheckpoint,
  kUnsupportedFormat,
  kTorchScriptArchive,
  kZipCorrupt,
  kZipUnsupported,
  kZipBadName,
  kZipDuplicate,
  kZipOverlap,
  kCrcMismatch,
  kMissingRecord,
  kBadVersion,
  kPickleTruncated,
  kPickleBadOpcode,
  kPickleBadStack,
  kPickleBadMemo,
  kPickleBadValue,
  kPickleDuplicateKey,
  kPickleCycle,
  kUnsafeGlobal,
  kLimitExceeded,
  kBadStorageRef,
  kStorageSizeMismatch,
  kBadTensorMetadata,
  kUnsupportedDType,
  kUnsupportedLayout,
  kNoStateDict,
  kSafetensorsInvalid,
  kIndexInvalid,
};

// "ZIP_CORRUPT", ...
std::string_view Name(ErrorCode code);

// The status code follows from `code`: kIoError is UNAVAILABLE, what a half-written file looks like
// is DATA_LOSS, all else INVALID_ARGUMENT. `message` comes without the code's name.
absl::Status MakeError(ErrorCode code, std::string_view message);

// Sets what MayBeTorn says of `status`, where its code alone does not tell.
absl::Status MarkTorn(absl::Status status, bool may_be_torn);

// The code of a status that MakeError made; nullopt for others.
std::optional<ErrorCode> GetErrorCode(const absl::Status& status);

// Whether a file that is still being written can look like this: cut short, no end record, records
// missing or with another checksum. Such a file is "not yet" while it grows.
bool MayBeTorn(const absl::Status& status);

// Whether trying again may help although the file does not change (I/O, memory).
bool IsTransient(const absl::Status& status);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_ERROR_H_
