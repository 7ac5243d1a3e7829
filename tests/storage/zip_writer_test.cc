// The container's zip64 fields, over entries whose data is only counted. What is really written and
// read back at that size is tested by large_checkpoint_test.
#include "storage/zip_writer.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kHuge = 0xFFFFFFFF;  // The first size that needs zip64.

std::uint64_t Little(std::string_view bytes, std::size_t at, int count) {
  std::uint64_t value = 0;
  for (int i = count; i-- > 0;) {
    value = value << 8 | static_cast<std::uint8_t>(bytes[at + static_cast<std::size_t>(i)]);
  }
  return value;
}

class ZipWriterTest : public ::testing::Test {
 protected:
  ZipWriterTest() {
    EXPECT_TRUE(zip_.Begin("data/0", kHuge).ok());
    zip_.SkipData();
    EXPECT_TRUE(zip_.End().ok());
    EXPECT_TRUE(zip_.Add("data/1", "abc").ok());
    EXPECT_TRUE(zip_.Finish().ok());
  }
  // A position in the file after the huge run, in what was written of it.
  static std::size_t At(std::uint64_t offset) { return offset - kHuge; }

  std::string written_;
  const ByteSink sink_ = [this](absl::Span<const std::byte> bytes) {
    written_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    return absl::OkStatus();
  };
  ZipWriter zip_{sink_};
};

// The local header of the first entry: it lies before the data, so positions are the file's.
constexpr std::size_t kName = 30;
constexpr std::size_t kExtra = kName + 14;

std::uint64_t FirstData(std::string_view written) {
  return kExtra + 24 + Little(written, kExtra + 22, 2);
}

TEST_F(ZipWriterTest, AHugeEntryHasItsSizeInABlock) {
  EXPECT_EQ(written_.substr(0, 4), "PK\x03\x04");
  EXPECT_EQ(written_.substr(kName, 14), "archive/data/0");
  EXPECT_EQ(Little(written_, 18, 8), 0u) << "sizes come later";
  EXPECT_EQ(Little(written_, kExtra, 2), 1u);
  EXPECT_EQ(Little(written_, kExtra + 2, 2), 16u);
  EXPECT_EQ(Little(written_, kExtra + 4, 8), kHuge);
  EXPECT_EQ(Little(written_, kExtra + 12, 8), 0u);
  EXPECT_EQ(written_.substr(kExtra + 20, 2), "FB");
  EXPECT_EQ(FirstData(written_) % 64, 0u);
  const std::uint64_t descriptor = FirstData(written_) + kHuge;
  EXPECT_EQ(written_.substr(At(descriptor), 4), "PK\x07\x08");
  EXPECT_EQ(Little(written_, At(descriptor) + 8, 8), kHuge);
  EXPECT_EQ(Little(written_, At(descriptor) + 16, 8), kHuge);
}

TEST_F(ZipWriterTest, AnEntryBeyondHasItsOffsetInABlockAndALongDescriptor) {
  const std::uint64_t header = FirstData(written_) + kHuge + 24;
  EXPECT_EQ(written_.substr(At(header), 4), "PK\x03\x04");
  const std::size_t extra = At(header) + 30 + 14;
  EXPECT_EQ(Little(written_, extra, 2), 1u);
  EXPECT_EQ(Little(written_, extra + 2, 2), 8u);
  EXPECT_EQ(Little(written_, extra + 4, 8), header);
  const std::uint64_t data = header + 30 + 14 + 12 + 4 + Little(written_, extra + 14, 2);
  EXPECT_EQ(data % 64, 0u);
  EXPECT_EQ(written_.substr(At(data), 3), "abc");
  EXPECT_EQ(written_.substr(At(data) + 3, 4), "PK\x07\x08");
  EXPECT_EQ(Little(written_, At(data) + 3 + 8, 8), 3u);
  EXPECT_EQ(written_.substr(At(data) + 3 + 24, 4), "PK\x01\x02");
}

TEST_F(ZipWriterTest, TheDirectoryHasPlaceholdersAndTheValuesInBlocks) {
  const std::uint64_t second = FirstData(written_) + kHuge + 24;
  const std::size_t central = written_.find("PK\x01\x02");
  EXPECT_EQ(Little(written_, central + 20, 8), 0xFFFFFFFFFFFFFFFF);
  EXPECT_EQ(Little(written_, central + 46 + 14, 2), 1u);
  EXPECT_EQ(Little(written_, central + 46 + 14 + 2, 2), 16u);
  EXPECT_EQ(Little(written_, central + 46 + 14 + 4, 8), kHuge);
  EXPECT_EQ(Little(written_, central + 46 + 14 + 12, 8), kHuge);
  const std::size_t next = written_.find("PK\x01\x02", central + 1);
  EXPECT_EQ(Little(written_, next + 20, 4), 3u);
  EXPECT_EQ(Little(written_, next + 42, 4), 0xFFFFFFFF);
  EXPECT_EQ(Little(written_, next + 46 + 14 + 4, 8), second);
  const std::size_t end = written_.size() - 22;
  EXPECT_EQ(written_.substr(end, 4), "PK\x05\x06");
  EXPECT_EQ(Little(written_, end + 16, 4), 0xFFFFFFFF);
  EXPECT_EQ(At(Little(written_, end - 76 + 48, 8)), central);
  EXPECT_EQ(zip_.size_bytes(), written_.size() + kHuge);
}

TEST(ZipWriterMisuseTest, AnEntryMustGetTheBytesThatItWasPromised) {
  const ByteSink nowhere = [](absl::Span<const std::byte>) { return absl::OkStatus(); };
  ZipWriter zip(nowhere);
  ASSERT_TRUE(zip.Begin("a", 3).ok());
  EXPECT_EQ(zip.End().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(zip.Append(std::vector<std::byte>(4)).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace relight::storage
