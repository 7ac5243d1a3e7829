// A file without a disk, for tests that write the same file thousands of times.
#ifndef RELIGHT_TESTS_STORAGE_MEMORY_FILE_H_
#define RELIGHT_TESTS_STORAGE_MEMORY_FILE_H_

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "gtest/gtest.h"

namespace relight::storage {

class MemoryFile {
 public:
  MemoryFile() : fd_(::memfd_create("relight-test", MFD_CLOEXEC)) { EXPECT_TRUE(fd_.valid()); }

  // Usable with open(2) while this object lives.
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_.get()); }

  void Write(std::string_view content) const {
    EXPECT_EQ(::ftruncate(fd_.get(), static_cast<off_t>(content.size())), 0);
    EXPECT_EQ(::pwrite(fd_.get(), content.data(), content.size(), 0),
              static_cast<ssize_t>(content.size()));
  }

 private:
  UniqueFd fd_;
};

}  // namespace relight::storage

#endif  // RELIGHT_TESTS_STORAGE_MEMORY_FILE_H_
