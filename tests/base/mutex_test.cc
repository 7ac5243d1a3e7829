#include "base/mutex.h"

#include <gtest/gtest.h>

#include <thread>

namespace relight {
namespace {

TEST(CondVarTest, WaitForTimesOut) {
  Mutex mutex;
  CondVar condition;
  MutexLock lock(mutex);
  EXPECT_FALSE(condition.WaitFor(mutex, absl::Milliseconds(1)));
}

TEST(CondVarTest, SignalWakesAWaiterWithoutTimeout) {
  Mutex mutex;
  CondVar condition;
  bool ready = false;
  std::thread signaller([&] {
    MutexLock lock(mutex);
    ready = true;
    condition.SignalAll();
  });
  {
    MutexLock lock(mutex);
    while (!ready) condition.WaitFor(mutex, absl::InfiniteDuration());
    EXPECT_TRUE(ready);
  }
  signaller.join();
}

}  // namespace
}  // namespace relight
