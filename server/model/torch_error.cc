#include "server/model/torch_error.h"

#include <c10/util/Exception.h>

#include <exception>
#include <new>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/escape.h"

namespace relight::model {
namespace {

constexpr std::size_t kMaxSentenceBytes = 400;

// What the exception being handled says, and whether it is about memory.
struct Failure {
  std::string sentence;
  bool out_of_memory = false;
  bool of_the_device = false;  // Which may come back.
};

bool SaysOutOfMemory(const std::string& what) {
  return absl::StrContains(what, "out of memory") || absl::StrContains(what, "not enough memory") ||
         absl::StrContains(what, "can't allocate memory");
}

bool BlamesTheDevice(const std::string& sentence) {
  return absl::StrContains(sentence, "CUDA error") ||
         absl::StrContains(sentence, "CUBLAS_STATUS") ||
         absl::StrContains(sentence, "CUDNN_STATUS");
}

Failure Describe(const std::string& what) {
  return {TorchSentence(what), SaysOutOfMemory(what), BlamesTheDevice(what)};
}

Failure CurrentFailure() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return {"out of memory", true};
  } catch (const c10::Error& error) {
    return Describe(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return Describe(error.what());
  } catch (...) {
    return {"an exception of unknown type", false};
  }
}

// LibTorch has no codes: its own asserts and missing kernels aside, a message about sizes is about
// what it was fed.
bool BlamesTheInput(const std::string& sentence, bool has_free_dimensions) {
  if (absl::StrContains(sentence, "index out of range")) return true;
  if (!has_free_dimensions || absl::StrContains(sentence, "INTERNAL ASSERT") ||
      absl::StrContains(sentence, "not implemented") || absl::StrContains(sentence, "CUDA")) {
    return false;
  }
  const std::string lower = absl::AsciiStrToLower(sentence);
  return absl::StrContains(lower, "size") || absl::StrContains(lower, "shape") ||
         absl::StrContains(lower, "dimension");
}

}  // namespace

std::string TorchSentence(std::string_view what) {
  // The TorchScript interpreter puts its traceback first and the reason last.
  constexpr std::string_view kInterpreterReason = "RuntimeError: ";
  std::string_view sentence = what;
  const std::size_t reason = what.rfind(kInterpreterReason);
  if (reason != std::string_view::npos) sentence = what.substr(reason + kInterpreterReason.size());
  const std::size_t start = sentence.find_first_not_of(" \n\t");
  if (start == std::string_view::npos) return "no message";
  sentence = sentence.substr(start);
  return Escape(sentence.substr(0, sentence.find('\n')), kMaxSentenceBytes);
}

absl::Status StatusOfCurrentException(std::string_view doing, absl::StatusCode code) {
  const Failure failure = CurrentFailure();
  if (failure.out_of_memory) {
    code = absl::StatusCode::kResourceExhausted;
  } else if (failure.of_the_device) {
    code = absl::StatusCode::kUnavailable;
  }
  return absl::Status(code, absl::StrCat(std::string(doing), ": ", failure.sentence));
}

absl::Status StatusOfForwardException(bool has_free_dimensions) {
  const Failure failure = CurrentFailure();
  const std::string message = absl::StrCat("the forward failed: ", failure.sentence);
  if (failure.out_of_memory) return absl::ResourceExhaustedError(message);
  if (failure.of_the_device) return absl::UnavailableError(message);
  if (BlamesTheInput(failure.sentence, has_free_dimensions)) {
    return absl::InvalidArgumentError(message);
  }
  return absl::InternalError(message);
}

}  // namespace relight::model
