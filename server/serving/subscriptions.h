// Who wants to hear that a model's status changed.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_SERVING_SUBSCRIPTIONS_H_
#define RELIGHT_SERVER_SERVING_SUBSCRIPTIONS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "server/serving/server_core.h"

namespace relight::serving {

// Must outlive what Add returns.
class Subscriptions {
 public:
  using OnChange = std::function<void(const std::string& model)>;

  // Destroying the result waits for a call under way, unless it is made on the same thread.
  std::unique_ptr<ServerCore::Subscription> Add(OnChange on_change);

  // Calls everyone for each model, with no lock held.
  void Notify(const std::vector<std::string>& models);

 private:
  class Entry;
  class Handle;

  Mutex mutex_;
  std::vector<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_SUBSCRIPTIONS_H_
