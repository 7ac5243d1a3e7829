// load_floor FILE: the least that loading a file can cost one thread: each block is read, its
// CRC-32 is taken, and it is copied to where it stays, in memory that was touched before. Prints
// the seconds of each as JSON.
#include <fcntl.h>
#include <libdeflate.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using Seconds = std::chrono::duration<double>;

constexpr std::size_t kBlockBytes = std::size_t{4} << 20;
constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;

[[noreturn]] void Fail(const char* what) {
  std::perror(what);
  std::exit(1);
}

// Never freed: the process ends with it.
std::byte* TouchedMemory(std::size_t size_bytes) {
  const std::size_t whole_pages = (size_bytes / kHugePageBytes + 1) * kHugePageBytes;
  void* const memory = std::aligned_alloc(kHugePageBytes, whole_pages);
  if (memory == nullptr) Fail("memory");
  madvise(memory, whole_pages, MADV_HUGEPAGE);
  std::memset(memory, 1, whole_pages);
  return static_cast<std::byte*>(memory);
}

std::size_t SizeOf(int file) {
  struct stat status = {};
  if (fstat(file, &status) != 0) Fail("fstat");
  return static_cast<std::size_t>(status.st_size);
}

void ReadBlock(int file, std::byte* block, std::size_t size_bytes, std::size_t offset) {
  while (size_bytes > 0) {
    const ssize_t got = pread(file, block, size_bytes, static_cast<off_t>(offset));
    if (got <= 0) Fail("pread");
    block += got;
    size_bytes -= static_cast<std::size_t>(got);
    offset += static_cast<std::size_t>(got);
  }
}

struct Cost {
  Seconds read{};
  Seconds checksum{};
  Seconds copy{};
};

template <typename Step>
void Time(Seconds& total, Step step) {
  const auto start = std::chrono::steady_clock::now();
  step();
  total += std::chrono::steady_clock::now() - start;
}

Cost Load(int file, std::size_t size_bytes, std::byte* block, std::byte* destination,
          std::uint32_t& crc) {
  Cost cost;
  for (std::size_t at = 0; at < size_bytes; at += kBlockBytes) {
    const std::size_t length = std::min(kBlockBytes, size_bytes - at);
    Time(cost.read, [&] { ReadBlock(file, block, length, at); });
    Time(cost.checksum, [&] { crc = libdeflate_crc32(crc, block, length); });
    Time(cost.copy, [&] { std::memcpy(destination + at, block, length); });
  }
  return cost;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: load_floor FILE\n", stderr);
    return 2;
  }
  const int file = open(argv[1], O_RDONLY | O_CLOEXEC);
  if (file < 0) Fail(argv[1]);
  const std::size_t size_bytes = SizeOf(file);
  std::byte* const block = TouchedMemory(kBlockBytes);
  std::byte* const destination = TouchedMemory(size_bytes);
  std::uint32_t crc = 0;
  const Cost cost = Load(file, size_bytes, block, destination, crc);
  std::printf(
      "{\"bytes\": %zu, \"crc32\": %u, \"seconds\": %f, \"read\": %f, \"checksum\": %f, "
      "\"copy\": %f}\n",
      size_bytes, crc, (cost.read + cost.checksum + cost.copy).count(), cost.read.count(),
      cost.checksum.count(), cost.copy.count());
  return 0;
}
