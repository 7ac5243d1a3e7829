#include "server/logging.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstddef>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/escape.h"
#include "base/log_fields.h"

namespace relight {
namespace {

std::string Quote(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What the calling thread says its lines are about, each with a comma before it.
std::string FieldsAsJson(const LogFields& fields) {
  std::string out;
  if (!fields.model.empty()) {
    out += ",\"model\":" + Quote(Escape(fields.model, std::numeric_limits<std::size_t>::max()));
  }
  if (fields.version) out += ",\"version\":" + std::to_string(*fields.version);
  if (fields.generation) out += ",\"generation\":" + std::to_string(*fields.generation);
  if (!fields.event.empty()) out += ",\"event\":" + Quote(fields.event);
  return out;
}

// %* in a pattern: the message as a JSON string, quotes included, and the fields that go with it.
// Lines are formatted by the thread that logs.
class JsonMessage final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    std::string text = Quote({message.payload.data(), message.payload.size()});
    if (const LogFields* fields = LogScope::Current()) text += FieldsAsJson(*fields);
    out.append(text.data(), text.data() + text.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<JsonMessage>();
  }
};

}  // namespace

void SetUpLogging(const std::string& level, const std::string& format) {
  auto logger = spdlog::stderr_color_mt("relight");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  if (format == "json") {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<JsonMessage>('*').set_pattern(
        R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","message":%*})");
    logger->set_formatter(std::move(formatter));
  } else {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %^%-7l%$ %v");
  }
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace relight
