// Damage to a safetensors file that leaves its header readable: half of what libFuzzer makes of an
// input has the header's length put right again.
#include <cstring>
#include <random>
#include <string_view>

#include "tests/fuzz/fuzz_target.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace relight::fuzz {
namespace {

void RepairLength(std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kLengthBytes = 8;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::size_t end = text.rfind("}}");
  if (end == std::string_view::npos || end < kLengthBytes) return;
  const std::uint64_t length = end + 2 - kLengthBytes;
  std::memcpy(data, &length, sizeof(length));
}

}  // namespace
}  // namespace relight::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (std::minstd_rand(seed)() % 2 == 0) relight::fuzz::RepairLength(data, size);
  return size;
}
