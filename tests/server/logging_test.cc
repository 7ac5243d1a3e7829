#include "server/logging.h"

#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace relight
