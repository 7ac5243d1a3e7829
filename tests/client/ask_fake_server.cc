// Runs the program that is named on the command line against a fake server: PROGRAM TARGET double
// x. Exits as it does.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "tests/client/fake_server.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: ask_fake_server PROGRAM\n");
    return 2;
  }
  const relight::client::FakeServer server;
  std::string target = server.target();
  std::string model = "double";
  std::string input = "x";
  char* const words[] = {argv[1], target.data(), model.data(), input.data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, argv[1], nullptr, nullptr, words, environ) != 0) return 1;
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 1;
  return WEXITSTATUS(status);
}
