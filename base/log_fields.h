// What the log lines of a scope are about: fields beside the message, where the log is JSON.
//
//   const LogScope about({.model = name, .version = 7, .event = "served"});
//   spdlog::info("model {}: serves version {}", Escape(name), 7);
//
// A scope holds for the thread that made it, and hides the one around it. The message says
// everything all the same: the text log has nothing else.
#ifndef RELIGHT_BASE_LOG_FIELDS_H_
#define RELIGHT_BASE_LOG_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace relight {

struct LogFields {
  std::string model = {};
  std::optional<std::int64_t> version = {};
  std::optional<std::uint64_t> generation = {};
  std::string_view event = {};  // A literal.
};

class LogScope {
 public:
  explicit LogScope(LogFields fields);
  ~LogScope();
  LogScope(const LogScope&) = delete;
  LogScope& operator=(const LogScope&) = delete;

  // Of the calling thread's innermost scope; null outside of any.
  static const LogFields* Current();

 private:
  const LogFields fields_;
  const LogScope* const around_;
};

}  // namespace relight

#endif  // RELIGHT_BASE_LOG_FIELDS_H_
