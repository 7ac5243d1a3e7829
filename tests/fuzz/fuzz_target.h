// What every fuzz target here looks like: one entry point, which libFuzzer calls with inputs of its
// own making in the `fuzz` preset, and corpus_main.cc with the files of a corpus everywhere else.
#ifndef RELIGHT_TESTS_FUZZ_FUZZ_TARGET_H_
#define RELIGHT_TESTS_FUZZ_FUZZ_TARGET_H_

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

// Returns 0, or does not return: whatever is wrong with how the code treated the input aborts.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace relight::fuzz {

// Aborts unless `holds`: `what` says which promise was broken.
inline void Require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "a promise is broken: %s\n", what.c_str());
  std::abort();
}

}  // namespace relight::fuzz

#endif  // RELIGHT_TESTS_FUZZ_FUZZ_TARGET_H_
