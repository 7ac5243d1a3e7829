// The few threads that may wait: for the manager, for files, for a slow client. gRPC's own threads
// hand such work over here.
//
// Thread-safe.
#ifndef RELIGHT_SERVER_RPC_ADMIN_IO_H_
#define RELIGHT_SERVER_RPC_ADMIN_IO_H_

#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"

namespace relight::rpc {

class AdminIo {
 public:
  using Task = absl::AnyInvocable<void()>;
  static constexpr std::size_t kMaxWaiting = 256;

  explicit AdminIo(int threads);
  ~AdminIo() { Stop(); }

  // False, and `task` is not run, where kMaxWaiting tasks wait already or the threads have stopped.
  [[nodiscard]] bool Run(Task task);

  // Waits until nothing waits or runs; false where `deadline` passes first.
  bool WaitIdle(absl::Time deadline);

  // Runs what waits, then ends the threads.
  void Stop();

 private:
  void Loop();

  Mutex mutex_;
  CondVar wake_;
  CondVar idle_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

// Of a call for which AdminIo::Run said no.
inline absl::Status TooBusy() {
  return absl::UnavailableError("too many admin calls are waiting; try again later");
}

// So that no call waits behind one that may take long: each kind has threads of its own.
struct AdminPools {
  AdminIo queries{1};    // What only looks.
  AdminIo orders{4};     // What changes which version serves, and overtakes what is under way.
  AdminIo long_work{2};  // Reloads and snapshots, and taking in what was pushed.
  AdminIo transfers{2};  // One chunk of a push or a download at a time.

  bool WaitIdle(absl::Time deadline) {
    return long_work.WaitIdle(deadline) && transfers.WaitIdle(deadline) &&
           orders.WaitIdle(deadline) && queries.WaitIdle(deadline);
  }
  void Stop() {
    long_work.Stop();
    transfers.Stop();
    orders.Stop();
    queries.Stop();
  }
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_ADMIN_IO_H_
