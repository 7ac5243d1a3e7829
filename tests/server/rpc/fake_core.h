// A ServerCore for tests of the transport: it answers by calling a function of the test's, records
// what it was asked, and can hold requests until the test lets them go.
#ifndef RELIGHT_TESTS_SERVER_RPC_FAKE_CORE_H_
#define RELIGHT_TESTS_SERVER_RPC_FAKE_CORE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "server/serving/server_core.h"

namespace relight::rpc {

// The bytes of a tensor in one piece.
inline std::string Join(const serving::ByteSlices& slices) {
  std::string out;
  for (const auto& slice : slices) {
    out.append(reinterpret_cast<const char*>(slice.data()), slice.size());
  }
  return out;
}

inline std::shared_ptr<const std::byte> OwnBytes(std::string bytes) {
  auto owner = std::make_shared<const std::string>(std::move(bytes));
  return {owner, reinterpret_cast<const std::byte*>(owner->data())};
}

inline serving::OutputTensor MakeOutput(std::string name, DType dtype,
                                        std::vector<std::int64_t> shape, std::string bytes) {
  serving::OutputTensor out;
  out.name = std::move(name);
  out.dtype = dtype;
  out.shape = std::move(shape);
  out.size_bytes = bytes.size();
  out.data = OwnBytes(std::move(bytes));
  return out;
}

class FakeCore final : public serving::ServerCore {
 public:
  using Handler = std::function<absl::StatusOr<serving::InferResult>(const serving::InferRequest&)>;

  FakeCore() {
    auto info = std::make_shared<serving::ModelInfo>();
    info->name = "echo";
    info->inputs = {{"x", DType::kFloat32, {-1, 4}, 0}};
    info->outputs = {{"y", DType::kFloat32, {-1, 4}, 0}};
    info->batching.max_batch_size = 8;
    info->batching.max_queue_size = 100;
    info->batching.preferred_batch_sizes = {4, 8};
    info->batching.max_queue_delay = absl::Microseconds(250);
    info->platform = "relight_network";
    info->loaded_versions = {12, 7};
    info_ = info;
  }

  // Version 12, generation 3: every input comes back as an output of the same bytes, under the
  // names that were asked for (or "y", "y1", ...).
  static absl::StatusOr<serving::InferResult> Echo(const serving::InferRequest& request) {
    serving::InferResult result;
    result.version = request.version.value_or(12);
    result.generation = 3;
    result.weights_digest = std::make_shared<const std::string>("00ff");
    for (std::size_t i = 0; i < request.inputs.size(); ++i) {
      const serving::InputTensor& input = request.inputs[i];
      std::string name = i == 0 ? "y" : "y" + std::to_string(i);
      if (i < request.outputs.size()) name = request.outputs[i];
      result.outputs.push_back(MakeOutput(name, input.dtype, input.shape, Join(input.bytes)));
    }
    return result;
  }

  // --- what a test sets and looks at ---

  void SetHandler(Handler handler) {
    MutexLock lock(mutex_);
    handler_ = std::move(handler);
  }
  // From now on requests wait in Infer until Release.
  void Hold() {
    MutexLock lock(mutex_);
    holding_ = true;
  }
  void Release() {
    std::deque<std::function<void()>> held;
    {
      MutexLock lock(mutex_);
      holding_ = false;
      held.swap(held_);
    }
    for (const auto& run : held) run();
  }
  void WaitForHeld(std::size_t count) {
    MutexLock lock(mutex_);
    while (held_.size() < count) changed_.Wait(mutex_);
  }
  std::size_t held() {
    MutexLock lock(mutex_);
    return held_.size();
  }
  serving::InferRequest last_request() {
    MutexLock lock(mutex_);
    return last_;
  }
  void SetReady(bool ready) {
    ready_.store(ready);
    Notify("");
  }
  void Notify(const std::string& model) {
    std::vector<std::function<void(const std::string&)>> callbacks;
    {
      MutexLock lock(mutex_);
      for (const auto& [key, callback] : subscribers_) callbacks.push_back(callback);
    }
    for (const auto& callback : callbacks) callback(model);
  }
  void SetInfo(std::shared_ptr<const serving::ModelInfo> info) {
    MutexLock lock(mutex_);
    info_ = std::move(info);
  }
  void SetStatus(serving::ModelStatus status) {
    MutexLock lock(mutex_);
    status_ = std::move(status);
  }
  void SetAdminOutcome(absl::Status outcome) {
    MutexLock lock(mutex_);
    outcome_ = std::move(outcome);
  }
  void SetHistory(std::vector<serving::HistoryEntry> history) {
    MutexLock lock(mutex_);
    history_ = std::move(history);
  }
  void SetStatistics(serving::ModelStatistics model, serving::VersionStatistics version) {
    MutexLock lock(mutex_);
    model_statistics_ = std::move(model);
    version_statistics_ = std::move(version);
  }
  std::vector<std::string> calls() {
    MutexLock lock(mutex_);
    return calls_;
  }
  // The models that requests named which never reached Infer.
  std::vector<std::string> invalid_requests() {
    MutexLock lock(mutex_);
    return invalid_requests_;
  }
  bool drained() const { return drained_.load(); }
  serving::SnapshotRequest last_snapshot() {
    MutexLock lock(mutex_);
    return snapshot_;
  }
  using SnapshotScript =
      std::function<absl::StatusOr<serving::SnapshotResult>(const SnapshotProgress&)>;
  void SetSnapshotScript(SnapshotScript script) {
    MutexLock lock(mutex_);
    snapshot_script_ = std::move(script);
  }
  using OpenScript = std::function<absl::StatusOr<std::unique_ptr<serving::OutgoingSnapshot>>(
      const SnapshotProgress&)>;
  void SetOpenScript(OpenScript script) {
    MutexLock lock(mutex_);
    open_script_ = std::move(script);
  }
  serving::PushRequest last_push() {
    MutexLock lock(mutex_);
    return push_;
  }
  using PushScript = std::function<absl::StatusOr<std::unique_ptr<serving::IncomingCheckpoint>>()>;
  void SetPushScript(PushScript script) {
    MutexLock lock(mutex_);
    push_script_ = std::move(script);
  }
  void SetMaxRequestBytes(std::uint64_t bytes) { max_request_bytes_.store(bytes); }

  // --- ServerCore ---

  void Infer(std::string_view model, serving::InferRequest request,
             serving::InferDone done) override {
    if (model != "echo") return done(UnknownModel(model));
    if (drained_.load()) return done(absl::UnavailableError("draining"));
    auto shared = std::make_shared<std::pair<serving::InferRequest, serving::InferDone>>(
        std::move(request), std::move(done));
    const auto run = [this, shared] {
      Handler handler;
      {
        MutexLock lock(mutex_);
        handler = handler_;
      }
      const serving::InferRequest& r = shared->first;
      absl::StatusOr<serving::InferResult> result =
          r.cancelled != nullptr && r.cancelled->load()
              ? absl::CancelledError("the client has gone")
              : handler(r);
      {
        MutexLock lock(mutex_);
        --in_flight_;
        changed_.SignalAll();
      }
      shared->second(std::move(result));
    };
    {
      MutexLock lock(mutex_);
      last_ = shared->first;
      ++in_flight_;
      if (holding_) {
        held_.emplace_back(run);
        changed_.SignalAll();
        return;
      }
    }
    run();
  }

  absl::StatusOr<std::shared_ptr<const serving::ModelInfo>> GetModelInfo(
      std::string_view model) const override {
    if (model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    return info_;
  }
  absl::StatusOr<bool> IsModelReady(std::string_view model,
                                    std::optional<std::int64_t> version) const override {
    if (model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    const auto& loaded = info_->loaded_versions;
    return !version || std::find(loaded.begin(), loaded.end(), *version) != loaded.end();
  }
  bool IsReady() const override { return ready_.load(); }
  std::vector<std::string> ModelNames() const override { return {"echo"}; }
  absl::StatusOr<std::vector<std::pair<std::string, serving::VersionStatistics>>> GetStatistics(
      std::string_view model, std::optional<std::int64_t> version) const override {
    if (!model.empty() && model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    std::vector<std::pair<std::string, serving::VersionStatistics>> rows;
    if (!version || *version == version_statistics_.version) {
      rows.emplace_back("echo", version_statistics_);
    }
    return rows;
  }
  std::vector<serving::ModelStatistics> GetModelStatistics() const override {
    MutexLock lock(mutex_);
    return {model_statistics_};
  }
  void CountInvalidRequest(std::string_view model) override {
    MutexLock lock(mutex_);
    invalid_requests_.emplace_back(model);
  }
  std::uint64_t MaxRequestBytes() const override { return max_request_bytes_.load(); }

  std::vector<serving::ModelStatus> GetStatus() const override {
    MutexLock lock(mutex_);
    return {status_};
  }
  absl::StatusOr<serving::ModelStatus> GetStatus(std::string_view model) const override {
    if (model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    return status_;
  }
  absl::StatusOr<std::vector<serving::HistoryEntry>> GetHistory(std::string_view model,
                                                                std::size_t limit) const override {
    if (model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    std::vector<serving::HistoryEntry> out = history_;
    if (limit > 0 && out.size() > limit) out.resize(limit);
    return out;
  }
  absl::StatusOr<serving::ReloadResult> Reload(std::string_view model) override {
    absl::StatusOr<serving::ModelStatus> status = Act("reload", model);
    if (!status.ok()) return status.status();
    return serving::ReloadResult{*std::move(status), true};
  }
  absl::StatusOr<serving::ModelStatus> Pin(std::string_view model, std::int64_t version) override {
    return Act("pin " + std::to_string(version), model);
  }
  absl::StatusOr<serving::ModelStatus> Unpin(std::string_view model) override {
    return Act("unpin", model);
  }
  absl::StatusOr<serving::ModelStatus> RollBack(std::string_view model) override {
    return Act("rollback", model);
  }
  absl::StatusOr<serving::ModelStatus> Unload(std::string_view model) override {
    return Act("unload", model);
  }
  absl::StatusOr<serving::SnapshotResult> Snapshot(const serving::SnapshotRequest& request,
                                                   const SnapshotProgress& progress) override {
    SnapshotScript script;
    {
      MutexLock lock(mutex_);
      snapshot_ = request;
      script = snapshot_script_;
    }
    return script(progress);
  }
  absl::StatusOr<std::unique_ptr<serving::OutgoingSnapshot>> OpenSnapshot(
      const serving::SnapshotRequest& request, const SnapshotProgress& progress) override {
    OpenScript script;
    {
      MutexLock lock(mutex_);
      snapshot_ = request;
      script = open_script_;
    }
    return script(progress);
  }
  absl::StatusOr<std::unique_ptr<serving::IncomingCheckpoint>> BeginPush(
      const serving::PushRequest& request) override {
    if (request.model != "echo") return UnknownModel(request.model);
    PushScript script;
    {
      MutexLock lock(mutex_);
      push_ = request;
      script = push_script_;
    }
    return script();
  }

  std::unique_ptr<Subscription> Subscribe(
      std::function<void(const std::string& model)> on_change) override {
    class Entry final : public Subscription {
     public:
      Entry(FakeCore& core, int key) : core_(core), key_(key) {}
      ~Entry() override {
        MutexLock lock(core_.mutex_);
        core_.subscribers_.erase(key_);
      }

     private:
      FakeCore& core_;
      int key_;
    };
    MutexLock lock(mutex_);
    subscribers_.emplace(++next_key_, std::move(on_change));
    return std::make_unique<Entry>(*this, next_key_);
  }

  bool Drain(absl::Time deadline) override {
    drained_.store(true);
    MutexLock lock(mutex_);
    changed_.SignalAll();
    while (in_flight_ > 0) {
      if (!changed_.WaitFor(mutex_, deadline - absl::Now())) return in_flight_ == 0;
    }
    return true;
  }
  void WaitForDrain() {
    MutexLock lock(mutex_);
    while (!drained_.load()) changed_.Wait(mutex_);
  }

 private:
  static absl::Status UnknownModel(std::string_view model) {
    return absl::NotFoundError("Request for unknown model: " + std::string(model));
  }
  absl::StatusOr<serving::ModelStatus> Act(std::string what, std::string_view model) {
    if (model != "echo") return UnknownModel(model);
    MutexLock lock(mutex_);
    calls_.push_back(std::move(what));
    if (!outcome_.ok()) return outcome_;
    return status_;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::atomic<bool> ready_ = true;
  std::atomic<bool> drained_ = false;
  std::atomic<std::uint64_t> max_request_bytes_ = 1024;
  Handler handler_ ABSL_GUARDED_BY(mutex_) = Echo;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);
  serving::InferRequest last_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const serving::ModelInfo> info_ ABSL_GUARDED_BY(mutex_);
  serving::ModelStatus status_ ABSL_GUARDED_BY(mutex_);
  serving::ModelStatistics model_statistics_ ABSL_GUARDED_BY(mutex_);
  serving::VersionStatistics version_statistics_ ABSL_GUARDED_BY(mutex_);
  std::vector<serving::HistoryEntry> history_ ABSL_GUARDED_BY(mutex_);
  absl::Status outcome_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> invalid_requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> calls_ ABSL_GUARDED_BY(mutex_);
  serving::SnapshotRequest snapshot_ ABSL_GUARDED_BY(mutex_);
  SnapshotScript snapshot_script_ ABSL_GUARDED_BY(mutex_);
  OpenScript open_script_ ABSL_GUARDED_BY(mutex_);
  serving::PushRequest push_ ABSL_GUARDED_BY(mutex_);
  PushScript push_script_ ABSL_GUARDED_BY(mutex_);
  int next_key_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int, std::function<void(const std::string&)>> subscribers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_FAKE_CORE_H_
