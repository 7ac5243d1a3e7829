// Runs the relightctl binary as a person or a script runs it.
#ifndef RELIGHT_TESTS_CLIENT_RUN_RELIGHTCTL_H_
#define RELIGHT_TESTS_CLIENT_RUN_RELIGHTCTL_H_

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace relight::client {

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;

  nlohmann::json json() const {
    return nlohmann::json::parse(out, nullptr, /*allow_exceptions=*/false);
  }
};

inline std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// What the environment says to sanitizers, as "NAME=value": it goes for the children of a test too.
inline std::vector<std::string> SanitizerOptions() {
  std::vector<std::string> options;
  for (const char* name : {"ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"}) {
    const char* const value = std::getenv(name);
    if (value != nullptr) options.push_back(std::string(name) + "=" + value);
  }
  return options;
}

// With no more environment than `environment` and what sanitizers need, so that the tester's own
// does not matter. Keeps its input and output in `folder`.
inline Outcome RunRelightctl(const std::filesystem::path& folder, std::vector<std::string> words,
                             const std::string& input = "",
                             std::vector<std::string> environment = {}) {
  std::ofstream(folder / "in") << input;
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  const std::string in = folder / "in";
  const std::string out = folder / "out";
  const std::string err = folder / "err";
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, in.c_str(), O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, out.c_str(), kWrite, 0600);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, err.c_str(), kWrite, 0600);
  words.insert(words.begin(), RELIGHTCTL);
  for (std::string& option : SanitizerOptions()) environment.push_back(std::move(option));
  pid_t child = 0;
  const int error = posix_spawn(&child, RELIGHTCTL, &files, nullptr, Pointers(words).data(),
                                Pointers(environment).data());
  posix_spawn_file_actions_destroy(&files);
  Outcome outcome;
  int status = 0;
  if (error == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) {
    outcome = {WEXITSTATUS(status), ReadAll(out), ReadAll(err)};
  }
  return outcome;
}

}  // namespace relight::client

#endif  // RELIGHT_TESTS_CLIENT_RUN_RELIGHTCTL_H_
