// The process's log: to stderr, as text or as one JSON object a line, whose fields are time,
// level, message, and what base/log_fields.h says.
#ifndef RELIGHT_SERVER_LOGGING_H_
#define RELIGHT_SERVER_LOGGING_H_

#include <string>

namespace relight {

// `level` and `format` as ServerOptions has validated them. Call once, before the first thread.
void SetUpLogging(const std::string& level, const std::string& format);

}  // namespace relight

#endif  // RELIGHT_SERVER_LOGGING_H_
