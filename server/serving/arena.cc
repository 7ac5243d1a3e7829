#include "server/serving/arena.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace relight::serving {
namespace {

// The block to take: one that is large enough if there is one, else the largest.
template <typename Blocks>
std::optional<std::size_t> PickFree(const Blocks& blocks, std::size_t size_bytes) {
  std::optional<std::size_t> best;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (blocks[i].leased) continue;
    if (blocks[i].size_bytes >= size_bytes) return i;
    if (!best.has_value() || blocks[i].size_bytes > blocks[*best].size_bytes) best = i;
  }
  return best;
}

}  // namespace

Arena::Lease::Lease(std::shared_ptr<State> state, std::size_t index,
                    std::shared_ptr<std::byte> memory, std::size_t size_bytes)
    : state_(std::move(state)),
      index_(index),
      memory_(std::move(memory)),
      size_bytes_(size_bytes) {}

Arena::Lease::~Lease() {
  MutexLock lock(state_->mutex);
  state_->blocks[index_].leased = false;
  state_->returned.SignalAll();
}

Arena::Arena(model::GraphFactory& factory, std::string device, int blocks)
    : factory_(factory), device_(std::move(device)), state_(std::make_shared<State>()) {
  MutexLock lock(state_->mutex);
  state_->blocks.resize(static_cast<std::size_t>(std::max(blocks, 1)));
}

absl::StatusOr<std::shared_ptr<Arena::Lease>> Arena::Acquire(std::size_t size_bytes,
                                                             absl::Duration timeout) {
  // Waiting is for another thread to let go, so it goes by real time.
  const auto give_up = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  std::size_t index = 0;
  std::shared_ptr<std::byte> memory;
  {
    MutexLock lock(state_->mutex);
    std::optional<std::size_t> free = PickFree(state_->blocks, size_bytes);
    while (!free.has_value()) {
      const auto left = give_up - std::chrono::steady_clock::now();
      if (left <= left.zero()) {
        return absl::UnavailableError(
            "every block for weights is in use: a snapshot or a long request holds the version "
            "before; waiting for it to end");
      }
      state_->returned.WaitFor(state_->mutex, absl::FromChrono(left));
      free = PickFree(state_->blocks, size_bytes);
    }
    index = *free;
    Block& block = state_->blocks[index];
    block.leased = true;
    if (block.size_bytes >= size_bytes && block.memory != nullptr) {
      return std::make_shared<Lease>(state_, index, block.memory, block.size_bytes);
    }
    memory = std::exchange(block.memory, nullptr);
    block.size_bytes = 0;
  }
  // The small block goes before the large one comes.
  memory.reset();
  absl::StatusOr<std::shared_ptr<std::byte>> larger =
      factory_.AllocateHost(device_, std::max<std::size_t>(size_bytes, 1));
  MutexLock lock(state_->mutex);
  Block& block = state_->blocks[index];
  if (!larger.ok()) {
    block.leased = false;
    state_->returned.SignalAll();
    return larger.status();
  }
  block.memory = *std::move(larger);
  block.size_bytes = size_bytes;
  return std::make_shared<Lease>(state_, index, block.memory, block.size_bytes);
}

}  // namespace relight::serving
