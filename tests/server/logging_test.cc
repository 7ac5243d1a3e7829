#include "server/logging.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

#include "base/log_fields.h"

namespace relight {
namespace {

TEST(SetUpLoggingTest, JsonLinesStayOneObjectWhateverTheMessageHolds) {
  testing::internal::CaptureStderr();
  SetUpLogging("info", "json");
  spdlog::info("{}", "a \"quoted\" name\nand \xff a broken one");
  spdlog::debug("below the level");
  spdlog::drop_all();
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_EQ(std::count(log.begin(), log.end(), '\n'), 1) << log;
  const nlohmann::json line = nlohmann::json::parse(log, nullptr, false);
  ASSERT_FALSE(line.is_discarded()) << log;
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["message"], "a \"quoted\" name\nand \xEF\xBF\xBD a broken one");
  EXPECT_TRUE(line.contains("time"));
}

TEST(SetUpLoggingTest, JsonLinesHaveWhatTheyAreAboutAsFields) {
  testing::internal::CaptureStderr();
  SetUpLogging("info", "json");
  {
    const LogScope about({.model = "a\"b\n", .version = -7, .generation = 3, .event = "served"});
    spdlog::info("one");
  }
  {
    const LogScope about({.model = "m"});
    spdlog::info("two");
  }
  spdlog::info("three");
  spdlog::drop_all();
  std::istringstream log(testing::internal::GetCapturedStderr());
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(log, line);) {
    lines.push_back(nlohmann::json::parse(line, nullptr, false));
    ASSERT_FALSE(lines.back().is_discarded()) << line;
    lines.back().erase("time");
    lines.back().erase("level");
  }
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[0], nlohmann::json::parse(R"({"message": "one", "model": "a\"b\\x0a",
                                                "version": -7, "generation": 3,
                                                "event": "served"})"));
  EXPECT_EQ(lines[1], nlohmann::json::parse(R"({"message": "two", "model": "m"})"));
  EXPECT_EQ(lines[2], nlohmann::json::parse(R"({"message": "three"})"));
}

}  // namespace
}  // namespace relight
