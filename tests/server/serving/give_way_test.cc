#include "server/serving/give_way.h"

#include <gtest/gtest.h>

#include "server/serving/compute_pool.h"
#include "tests/server/serving/fake_graph.h"

namespace relight::serving {
namespace {

class HoldsAThread final : public BatchSource {
 public:
  void RunOne() override { gate.Pass(); }
  Gate gate;
};

TEST(GiveWayTest, GoesOnWhereRequestsNeverPause) {
  ComputePool pool(1);
  HoldsAThread source;
  pool.Schedule(source);
  source.gate.AwaitArrivals(1);
  for (int i = 0; i < 3; ++i) GiveWay(pool);  // Returns.
  source.gate.Open();
  pool.Detach(source);
}

TEST(GiveWayTest, DoesNotWaitForAnIdlePool) {
  ComputePool pool(2);
  HoldsAThread source;
  pool.Schedule(source);
  source.gate.AwaitArrivals(1);
  for (int i = 0; i < 1000; ++i) GiveWay(pool);
  source.gate.Open();
  pool.Detach(source);
}

}  // namespace
}  // namespace relight::serving
