#include "storage/sha256.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "base/unique_fd.h"
#include "tests/storage/temp_folder.h"

namespace relight::storage {
namespace {

constexpr char kShaOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256Test, IsThatOfTheStandardsExample) {
  const TempFolder folder;
  folder.Write("abc", "abc");
  const UniqueFd fd(::open(folder.Path("abc").c_str(), O_RDONLY));
  EXPECT_EQ(*Sha256OfFile(fd.get(), 3, {}), kShaOfAbc);
  EXPECT_EQ(Sha256OfFile(fd.get(), 4, {}).status().code(), absl::StatusCode::kDataLoss);
}

TEST(Sha256Test, StopsWhenItIsToldTo) {
  const TempFolder folder;
  folder.Write("abc", "abc");
  const UniqueFd fd(::open(folder.Path("abc").c_str(), O_RDONLY));
  EXPECT_EQ(Sha256OfFile(fd.get(), 3, [] { return absl::CancelledError("stop"); }).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace relight::storage
