// relightctl on a terminal: what it shows there while it waits.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "tests/client/fake_server.h"
#include "tests/client/run_relightctl.h"

namespace relight::client {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr char kErase[] = "\r\x1b[K";

// The end of a terminal that a person would sit at.
class Terminal {
 public:
  Terminal() : fd_(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC)) {
    if (fd_.valid() && grantpt(fd_.get()) == 0 && unlockpt(fd_.get()) == 0) {
      path_ = ptsname(fd_.get());
    }
  }

  const std::string& path() const { return path_; }

  // Reads until `words` were shown, or until all who had the terminal open are gone.
  void ReadUntil(const std::string& words) {
    char buffer[256];
    while (shown_.find(words) == std::string::npos) {
      const ssize_t count = read(fd_.get(), buffer, sizeof(buffer));
      if (count <= 0) return;
      shown_.append(buffer, static_cast<std::size_t>(count));
    }
  }
  void ReadToEnd() { ReadUntil(std::string(1, '\0')); }
  const std::string& shown() const { return shown_; }

 private:
  UniqueFd fd_;
  std::string path_;
  std::string shown_;
};

class CtlTerminalTest : public testing::Test {
 protected:
  // Starts relightctl with its stderr there; its stdout goes to `out`.
  pid_t Start(std::vector<std::string> words, const std::string& out, const std::string& err) {
    words.insert(words.begin(), RELIGHTCTL);
    words.insert(words.end(), {"--server", server_.target(), "--admin", server_.socket_path(),
                               "--timeout", "60s"});
    std::vector<std::string> environment = SanitizerOptions();
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC | O_NOCTTY;
    posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), kWrite, 0600);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), kWrite, 0600);
    pid_t child = 0;
    const int error = posix_spawn(&child, RELIGHTCTL, &files, nullptr, Pointers(words).data(),
                                  Pointers(environment).data());
    posix_spawn_file_actions_destroy(&files);
    return error == 0 ? child : -1;
  }

  static int ExitCodeOf(pid_t child) {
    int status = 0;
    return waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  std::string Path(const std::string& name) const { return (server_.folder() / name).string(); }

  FakeServer server_;
};

TEST_F(CtlTerminalTest, WhatTakesLongerThanASecondShowsThatItIsUnderWay) {
  struct Case {
    std::vector<std::string> words;
    std::string shown;
    std::string out;  // How it begins.
  };
  const std::vector<Case> cases = {
      {{"reload", "held"}, "waiting for held  |", "held serves version 300"},
      {{"pin", "held", "5"}, "waiting for held  |", "held serves version 5"},
      {{"unpin", "held"}, "waiting for held  |", "held serves version 100"},
      {{"rollback", "held"}, "waiting for held  |", "held serves version 99"},
      {{"unload", "held"}, "waiting for held  |", "held is unloaded"},
      {{"infer", "held", "[[1, 2, 3, 4]]"}, "waiting for held  |", "held version 100"},
      {{"status", "held"}, "waiting for the status  |", "double  serving"},
      {{"history", "held"}, "waiting for the history  |", "TIME"},
      {{"snapshot", "held"}, "snapshot of held  [#######", "/snapshots/double"},
      {{"health", "--wait"}, "waiting for 127.0.0.1:", "serving"},
  };
  server_.Hold();
  std::vector<Terminal> terminals(cases.size());
  std::vector<pid_t> children;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    ASSERT_NE(terminals[i].path(), "");
    children.push_back(Start(cases[i].words, Path("out" + std::to_string(i)), terminals[i].path()));
  }
  const pid_t elsewhere = Start({"reload", "held"}, Path("out"), Path("err"));
  for (std::size_t i = 0; i < cases.size(); ++i) terminals[i].ReadUntil(cases[i].shown);
  server_.Release();
  for (std::size_t i = 0; i < cases.size(); ++i) {
    terminals[i].ReadToEnd();
    EXPECT_EQ(ExitCodeOf(children[i]), 0) << cases[i].words[0];
    EXPECT_THAT(terminals[i].shown(), HasSubstr(kErase + cases[i].shown)) << cases[i].words[0];
    EXPECT_THAT(terminals[i].shown(), EndsWith(kErase)) << cases[i].words[0];
    EXPECT_THAT(ReadAll(Path("out" + std::to_string(i))), testing::StartsWith(cases[i].out));
  }
  EXPECT_EQ(ExitCodeOf(elsewhere), 0);
  EXPECT_EQ(ReadAll(Path("err")), "");
}

}  // namespace
}  // namespace relight::client
