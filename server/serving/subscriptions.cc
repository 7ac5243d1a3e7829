#include "server/serving/subscriptions.h"

#include <thread>
#include <utility>

namespace relight::serving {

class Subscriptions::Entry {
 public:
  explicit Entry(OnChange on_change) : on_change_(std::move(on_change)) {}

  void Call(const std::string& model) {
    {
      MutexLock lock(mutex_);
      if (ended_) return;
      while (calling_) idle_.Wait(mutex_);
      if (ended_) return;
      calling_ = true;
      caller_ = std::this_thread::get_id();
    }
    on_change_(model);
    MutexLock lock(mutex_);
    calling_ = false;
    idle_.SignalAll();
  }

  void End() {
    MutexLock lock(mutex_);
    ended_ = true;
    while (calling_ && caller_ != std::this_thread::get_id()) idle_.Wait(mutex_);
  }

 private:
  const OnChange on_change_;
  Mutex mutex_;
  CondVar idle_;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool calling_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread::id caller_ ABSL_GUARDED_BY(mutex_);
};

class Subscriptions::Handle final : public ServerCore::Subscription {
 public:
  Handle(Subscriptions& owner, std::shared_ptr<Entry> entry)
      : owner_(owner), entry_(std::move(entry)) {}
  ~Handle() override {
    {
      MutexLock lock(owner_.mutex_);
      std::erase(owner_.entries_, entry_);
    }
    entry_->End();
  }

 private:
  Subscriptions& owner_;
  const std::shared_ptr<Entry> entry_;
};

std::unique_ptr<ServerCore::Subscription> Subscriptions::Add(OnChange on_change) {
  auto entry = std::make_shared<Entry>(std::move(on_change));
  MutexLock lock(mutex_);
  entries_.push_back(entry);
  return std::make_unique<Handle>(*this, std::move(entry));
}

void Subscriptions::Notify(const std::vector<std::string>& models) {
  if (models.empty()) return;
  std::vector<std::shared_ptr<Entry>> entries;
  {
    MutexLock lock(mutex_);
    entries = entries_;
  }
  for (const std::shared_ptr<Entry>& entry : entries) {
    for (const std::string& model : models) entry->Call(model);
  }
}

}  // namespace relight::serving
