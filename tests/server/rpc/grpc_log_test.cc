// gRPC's own log lines quote what peers send.
#include "server/rpc/grpc_log.h"

#include <gmock/gmock.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <sstream>

#include "tests/server/rpc/raw_client.h"
#include "tests/server/rpc/server_fixture.h"

namespace relight::rpc {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(GrpcLogTextTest, IsOneLineOfPrintableText) {
  const gpr_log_func_args line{"src/core/some.cc", 7, GPR_LOG_SEVERITY_ERROR, "a\nb\x1b[31m\xff"};
  EXPECT_EQ(GrpcLogText(line), "some.cc:7: a\\x0ab\\x1b[31m\\xff");
}

TEST(GrpcLogTextTest, OneWithoutAFolderKeepsItsName) {
  const std::string message(5000, 'x');
  const gpr_log_func_args line{"some.cc", 7, GPR_LOG_SEVERITY_INFO, message.c_str()};
  const std::string text = GrpcLogText(line);
  EXPECT_THAT(text, testing::StartsWith("some.cc:7: xxx"));
  EXPECT_LT(text.size(), 1100U);
}

// Keeps the process's log in memory.
class GrpcLogTest : public ServerTest {
 protected:
  GrpcLogTest() {
    auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(log_, /*force_flush=*/true);
    auto logger = std::make_shared<spdlog::logger>("test", std::move(sink));
    logger->set_level(spdlog::level::debug);
    logger->set_pattern("%l %v");
    spdlog::set_default_logger(std::move(logger));
  }
  ~GrpcLogTest() override { spdlog::set_default_logger(before_); }

  const std::shared_ptr<spdlog::logger> before_ = spdlog::default_logger();
  std::ostringstream log_;
};

TEST_F(GrpcLogTest, AClientCannotWriteALineOfItsOwn) {
  testing::internal::CaptureStderr();
  RawClient client(server_->grpc_port());
  client.Call("/inference.GRPCInferenceService/ServerLive", "",
              {{"grpc-encoding", "x\nforged \x1b[31m"}});
  client.WaitForFrame(RawClient::kHeaders);
  server_.reset();
  EXPECT_THAT(testing::internal::GetCapturedStderr(), Not(HasSubstr("forged")));
  const std::string log = log_.str();
  EXPECT_THAT(log, HasSubstr("x\\x0aforged \\x1b[31m"));
  EXPECT_THAT(log, Not(HasSubstr("\nforged")));
}

TEST_F(GrpcLogTest, ErrorsAreWarnedOfOnceInAWhile) {
  for (int i = 0; i < 5; ++i) gpr_log("here.cc", 1, GPR_LOG_SEVERITY_ERROR, "error %d", i);
  const std::string log = log_.str();
  EXPECT_THAT(log, HasSubstr("debug here.cc:1: error 4"));
  std::size_t warnings = 0;
  for (std::size_t at = 0; (at = log.find("warning ", at)) != std::string::npos; ++at) ++warnings;
  EXPECT_LE(warnings, 1U) << log;
}

}  // namespace
}  // namespace relight::rpc
