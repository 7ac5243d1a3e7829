#include "server/model/host_memory.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace relight::model {
namespace {

using testing::HasSubstr;

// A made-up /proc and /sys.
class AvailableMemoryTest : public testing::Test {
 protected:
  AvailableMemoryTest()
      : root_(testing::TempDir() + "/available_memory_" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
    Write("/proc/meminfo", "MemTotal:  9000 kB\nMemFree:  10 kB\nMemAvailable:   4000 kB\n");
  }
  ~AvailableMemoryTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }

  const std::string root_;
};

TEST_F(AvailableMemoryTest, IsTheMachinesWithoutCgroups) {
  const AvailableMemory available = ReadAvailableMemory(root_);
  EXPECT_EQ(available.bytes, 4000 * 1024);
  EXPECT_EQ(available.limited_by, "MemAvailable");
}

TEST_F(AvailableMemoryTest, IsLimitedByTheTightestCgroupAbove) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/memory.max", "max\n");
  Write("/sys/fs/cgroup/a/b/memory.current", "500\n");
  Write("/sys/fs/cgroup/a/memory.max", "3000\n");
  Write("/sys/fs/cgroup/a/memory.current", "1000\n");
  Write("/sys/fs/cgroup/a/memory.stat", "anon 100\ninactive_file 250\nactive_file 50\n");
  const AvailableMemory available = ReadAvailableMemory(root_);
  EXPECT_EQ(available.bytes, 3000 - 1000 + 300);
  EXPECT_THAT(available.limited_by, HasSubstr("/a/memory.max"));
}

TEST_F(AvailableMemoryTest, IsLimitedByVersionOneCgroups) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n");
  Write("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "2000\n");
  Write("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1500\n");
  Write("/sys/fs/cgroup/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 100\n");
  EXPECT_EQ(ReadAvailableMemory(root_).bytes, 600);
}

TEST_F(AvailableMemoryTest, InAContainerIsLimitedByTheMountsRoot) {
  Write("/proc/self/cgroup", "4:memory:/docker/0123\n");
  Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n");
  Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1500\n");
  EXPECT_EQ(ReadAvailableMemory(root_).bytes, 500);
}

TEST_F(AvailableMemoryTest, IsNoneOverTheLimit) {
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/memory.max", "2000\n");
  Write("/sys/fs/cgroup/memory.current", "2500\n");
  EXPECT_EQ(ReadAvailableMemory(root_).bytes, 0);
}

TEST(CheckFitsTest, LeavesRoomForTheLoadItself) {
  EXPECT_TRUE(CheckFits(16, {17, "x"}).ok());
  EXPECT_EQ(CheckFits(16, {16, "x"}).code(), absl::StatusCode::kResourceExhausted);
}

TEST(CheckFitsTest, NamesBothNumbers) {
  const absl::Status status = CheckFits(5000, {1234, "MemAvailable"});
  EXPECT_THAT(std::string(status.message()), HasSubstr("5000"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("1234"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("MemAvailable"));
}

TEST(CheckFitsTest, DoesNotWrap) {
  EXPECT_EQ(CheckFits(~std::uint64_t{0}, {100, "x"}).code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace relight::model
