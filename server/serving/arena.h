// The blocks of host memory that one model's weights live in, used in turn: two as a rule, so that
// a swap allocates, page-faults and frees nothing, and the version before stays whole.
#ifndef RELIGHT_SERVER_SERVING_ARENA_H_
#define RELIGHT_SERVER_SERVING_ARENA_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "server/model/graph_factory.h"

namespace relight::serving {

// Thread-safe. Leases may outlive it.
class Arena {
 private:
  struct Block {
    std::shared_ptr<std::byte> memory;
    std::size_t size_bytes = 0;
    bool leased = false;
  };
  struct State {
    Mutex mutex;
    CondVar returned;
    std::vector<Block> blocks ABSL_GUARDED_BY(mutex);
  };

 public:
  // One block in use. Destroying it gives the block back; the memory stays with the arena.
  class Lease {
   public:
    Lease(std::shared_ptr<State> state, std::size_t index, std::shared_ptr<std::byte> memory,
          std::size_t size_bytes);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

    // Which block it is: 0, 1, ...
    int index() const { return static_cast<int>(index_); }
    absl::Span<std::byte> bytes() const { return {memory_.get(), size_bytes_}; }

   private:
    const std::shared_ptr<State> state_;
    const std::size_t index_;
    const std::shared_ptr<std::byte> memory_;
    const std::size_t size_bytes_;
  };

  // `factory` must outlive the arena.
  Arena(model::GraphFactory& factory, std::string device, int blocks);

  // Leases a free block of at least `size_bytes`, making it larger where needed; its contents are
  // unspecified. Waits up to `timeout` for one to be given back: UNAVAILABLE then.
  // RESOURCE_EXHAUSTED where the memory cannot be had.
  absl::StatusOr<std::shared_ptr<Lease>> Acquire(std::size_t size_bytes, absl::Duration timeout);

 private:
  model::GraphFactory& factory_;
  const std::string device_;
  const std::shared_ptr<State> state_;
};

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_ARENA_H_
