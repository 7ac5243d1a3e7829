// Damage to a zip file that gets past the checksums: half of what libFuzzer makes of an input has
// the CRC-32 of every entry put right again, so that what is behind them is reached.
#include <cstring>
#include <random>
#include <string_view>

#include "libdeflate.h"
#include "storage/bytes.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace relight::fuzz {
namespace {

constexpr std::size_t kCentralBytes = 46;
constexpr std::size_t kLocalBytes = 30;
constexpr std::size_t kDescriptorBytes = 8;

template <typename T>
T Load(const std::uint8_t* data) {
  return storage::LoadLittle<T>(data);
}

void StoreCrc(std::uint8_t* data, std::uint32_t crc) { std::memcpy(data, &crc, sizeof(crc)); }

// Writes the right CRC-32 of the entry that the directory describes at `central` wherever it
// belongs, if the entry lies within the file.
void RepairEntry(std::uint8_t* data, std::size_t size, std::uint8_t* central) {
  const std::size_t header = Load<std::uint32_t>(central + 42);
  const std::size_t length = Load<std::uint32_t>(central + 20);
  if (header > size || size - header < kLocalBytes) return;
  const std::size_t names = std::size_t{Load<std::uint16_t>(data + header + 26)} +
                            Load<std::uint16_t>(data + header + 28);
  const std::size_t begin = header + kLocalBytes + names;
  if (begin > size || size - begin < length) return;
  const std::uint32_t crc = libdeflate_crc32(0, data + begin, length);
  StoreCrc(central + 16, crc);
  // Where a descriptor follows the data, the local header has zeros.
  if (Load<std::uint32_t>(data + header + 14) != 0) StoreCrc(data + header + 14, crc);
  const std::size_t end = begin + length;
  if (size - end >= kDescriptorBytes && std::memcmp(data + end, "PK\x07\x08", 4) == 0) {
    StoreCrc(data + end + 4, crc);
  }
}

void RepairChecksums(std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (std::size_t at = text.find("PK\x01\x02"); at != std::string_view::npos;
       at = text.find("PK\x01\x02", at + 1)) {
    if (size - at >= kCentralBytes) RepairEntry(data, size, data + at);
  }
}

}  // namespace
}  // namespace relight::fuzz

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t max_size, unsigned int seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (std::minstd_rand(seed)() % 2 == 0) relight::fuzz::RepairChecksums(data, size);
  return size;
}
