// A request between admission and its answer, and lists of such.
#ifndef RELIGHT_SERVER_SERVING_PENDING_REQUEST_H_
#define RELIGHT_SERVER_SERVING_PENDING_REQUEST_H_

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "server/serving/admission.h"
#include "server/serving/failure.h"
#include "server/serving/infer.h"

namespace relight::serving {

// Why a request is dropped before work on it starts.
enum class DropReason { kNone, kCancelled, kDeadline, kQueueTimeout };

struct PendingRequest {
  InferRequest request;
  AdmittedRequest admitted;
  InferDone done;
  std::chrono::steady_clock::time_point arrived;
  absl::Time queue_deadline = absl::InfiniteFuture();
  // Its place in the queue: those of a lower rank go first. Twice its level of priority, and one
  // more once it is late.
  std::size_t rank = 0;
  DropReason drop = DropReason::kNone;

 private:
  friend class PendingList;
  PendingRequest* next_ = nullptr;
};

DropReason ReasonToDrop(const InferRequest& request, absl::Time now);
DropReason ReasonToDrop(const PendingRequest& pending, absl::Time now);

// What the client of a dropped request gets. REQUIRES: `reason` is not kNone.
Failure DropFailure(DropReason reason, const InferRequest& request);

// Owns requests in order. Moving them about allocates nothing, so it may be done under a lock.
class PendingList {
 public:
  PendingList() = default;
  PendingList(PendingList&& other) noexcept
      : head_(std::exchange(other.head_, nullptr)),
        tail_(std::exchange(other.tail_, nullptr)),
        size_(std::exchange(other.size_, 0)) {}
  PendingList& operator=(PendingList&& other) noexcept {
    std::swap(head_, other.head_);
    std::swap(tail_, other.tail_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~PendingList() {
    while (!empty()) PopFront();
  }

  bool empty() const { return head_ == nullptr; }
  std::size_t size() const { return size_; }
  // REQUIRES: not empty.
  const PendingRequest& front() const { return *head_; }

  void PushBack(std::unique_ptr<PendingRequest> pending) {
    PendingRequest* added = pending.release();
    added->next_ = nullptr;
    (head_ == nullptr ? head_ : tail_->next_) = added;
    tail_ = added;
    ++size_;
  }
  // REQUIRES: not empty.
  std::unique_ptr<PendingRequest> PopFront() {
    std::unique_ptr<PendingRequest> first(head_);
    head_ = std::exchange(first->next_, nullptr);
    if (head_ == nullptr) tail_ = nullptr;
    --size_;
    return first;
  }
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const PendingRequest* each = head_; each != nullptr; each = each->next_) visit(*each);
  }
  // Puts all of `other` before what is here.
  void Prepend(PendingList other) {
    if (other.empty()) return;
    other.tail_->next_ = head_;
    head_ = std::exchange(other.head_, nullptr);
    if (tail_ == nullptr) tail_ = other.tail_;
    other.tail_ = nullptr;
    size_ += std::exchange(other.size_, 0);
  }

 private:
  PendingRequest* head_ = nullptr;
  PendingRequest* tail_ = nullptr;
  std::size_t size_ = 0;
};

// REQUIRES: `list` is not empty.
inline std::chrono::steady_clock::time_point FirstToCome(const PendingList& list) {
  auto first = std::chrono::steady_clock::time_point::max();
  list.ForEach(
      [&first](const PendingRequest& pending) { first = std::min(first, pending.arrived); });
  return first;
}

// When the first of them is to be dropped, if it is not run before; infinite for none.
inline absl::Time FirstToGoStale(const PendingList& list) {
  absl::Time first = absl::InfiniteFuture();
  list.ForEach([&first](const PendingRequest& pending) {
    first = std::min({first, pending.queue_deadline, pending.request.deadline});
  });
  return first;
}

}  // namespace relight::serving

#endif  // RELIGHT_SERVER_SERVING_PENDING_REQUEST_H_
