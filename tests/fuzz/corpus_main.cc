// Runs a fuzz target on every file of the given folders, as an ordinary test.
//
//   fuzz_zip build/dev/tests/fuzz/corpus/zip tests/fuzz/regressions/zip
//
// The last name printed is that of the file that a crash is about.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "tests/fuzz/fuzz_target.h"

namespace {

std::vector<std::filesystem::path> FilesOf(const std::filesystem::path& path) {
  std::vector<std::filesystem::path> files;
  if (std::filesystem::is_directory(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
      files.push_back(entry.path());
    }
  } else {
    files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  return files;
}

void RunFile(const std::filesystem::path& path) {
  std::printf("%s\n", path.c_str());
  std::fflush(stdout);
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> read{std::istreambuf_iterator<char>(file),
                               std::istreambuf_iterator<char>()};
  relight::fuzz::Require(file.good() || file.eof(), "the file cannot be read");
  // Of exactly that size, so that a sanitizer sees the first byte that is read beyond it.
  const std::vector<std::uint8_t> input(read.begin(), read.end());
  LLVMFuzzerTestOneInput(input.data(), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::vector<std::filesystem::path> files = FilesOf(argv[i]);
    relight::fuzz::Require(!files.empty(), std::string(argv[i]) + " is empty");
    for (const std::filesystem::path& file : files) RunFile(file);
  }
  relight::fuzz::Require(argc > 1, "no folder is named");
  return 0;
}
