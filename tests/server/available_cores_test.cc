#include "server/available_cores.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

namespace relight {
namespace {

// A folder that stands in for "/".
class AvailableCoresTest : public testing::Test {
 protected:
  AvailableCoresTest() {
    std::string name = testing::TempDir() + "/coresXXXXXX";
    root_ = ::mkdtemp(name.data());
  }
  ~AvailableCoresTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  int Cores() { return AvailableCores(root_); }

  std::string root_;
  const int all_ = AvailableCores("/nowhere");
};

TEST_F(AvailableCoresTest, WithoutCgroupsAllThatItMayRunOn) {
  EXPECT_GE(all_, 1);
  EXPECT_EQ(Cores(), all_);
}

TEST_F(AvailableCoresTest, AQuotaOfTheGroupLimits) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "100000 100000\n");
  EXPECT_EQ(Cores(), 1);
}

TEST_F(AvailableCoresTest, AQuotaOfAGroupAboveLimits) {
  Write("/proc/self/cgroup", "0::/a/b\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/a/cpu.max", "50000 100000\n");
  EXPECT_EQ(Cores(), 1) << "half a core";
}

TEST_F(AvailableCoresTest, InAContainerThePathMayBeTheHosts) {
  Write("/proc/self/cgroup", "0::/host/only\n");
  Write("/sys/fs/cgroup/cpu.max", "20000 50000\n");
  EXPECT_EQ(Cores(), 1);
}

TEST_F(AvailableCoresTest, VersionOneHasItsQuotaInTwoFiles) {
  Write("/proc/self/cgroup", "5:memory:/x\n4:cpu,cpuacct:/docker/1\n0::/\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cores(), 1);
}

TEST_F(AvailableCoresTest, APartOfACoreCountsAsOne) {
  if (all_ < 2) GTEST_SKIP() << "this machine has one core";
  Write("/proc/self/cgroup", "0::/\n");
  Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_EQ(Cores(), 2);
}

TEST_F(AvailableCoresTest, NoQuotaLimitsNothing) {
  Write("/proc/self/cgroup", "nonsense\n4:cpu:/\n0::/\n");
  for (const char* none : {"max 100000\n", "", "-1", "0 0", "9000000000000000 1"}) {
    Write("/sys/fs/cgroup/cpu.max", none);
    EXPECT_EQ(Cores(), all_) << none;
  }
  Write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Cores(), all_);
}

}  // namespace
}  // namespace relight
