// The two macros that Abseil keeps to itself.
#ifndef RELIGHT_BASE_STATUS_MACROS_H_
#define RELIGHT_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define RELIGHT_RETURN_IF_ERROR(expression)                                                      \
  do {                                                                                           \
    if (absl::Status relight_status = (expression); !relight_status.ok()) return relight_status; \
  } while (false)

#define RELIGHT_STATUS_CONCAT_INNER(a, b) a##b
#define RELIGHT_STATUS_CONCAT(a, b) RELIGHT_STATUS_CONCAT_INNER(a, b)
#define RELIGHT_ASSIGN_OR_RETURN(left, expression) \
  RELIGHT_ASSIGN_OR_RETURN_INNER(RELIGHT_STATUS_CONCAT(relight_result_, __LINE__), left, expression)
#define RELIGHT_ASSIGN_OR_RETURN_INNER(result, left, expression) \
  auto result = (expression);                                    \
  if (!result.ok()) return result.status();                      \
  left = std::move(result).value()

#endif  // RELIGHT_BASE_STATUS_MACROS_H_
