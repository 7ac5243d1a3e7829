// The stack machine that a pickle is a program for, reduced to what builds values. What the names
// and calls in it mean is left to an ObjectFactory; without one only plain values are allowed.
#ifndef RELIGHT_STORAGE_PICKLE_MACHINE_H_
#define RELIGHT_STORAGE_PICKLE_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "storage/dict_keys.h"
#include "storage/parse_context.h"
#include "storage/tree.h"

namespace relight::storage {

// Gives meaning to names and calls. Every function gets nodes of the context's tree.
class ObjectFactory {
 public:
  virtual ~ObjectFactory() = default;
  // A class or function by (modern) name, already known not to be forbidden.
  virtual absl::StatusOr<NodeId> MakeSymbol(std::string_view module, std::string_view name) = 0;
  // `arguments` is a tuple; for kNewObjEx a tuple of the tuple and the dict of keywords.
  virtual absl::StatusOr<NodeId> Call(NodeId callable, NodeId arguments, OpaqueMake how) = 0;
  virtual absl::Status Build(NodeId object, NodeId state) = 0;
  virtual absl::StatusOr<NodeId> LoadPersistent(NodeId id) = 0;
};

class PickleMachine {
 public:
  // `factory` may be null. Both outlive the machine.
  PickleMachine(ParseContext& context, DictKeys& keys, ObjectFactory* factory);

  struct Result {
    NodeId root = kNoNode;
    std::size_t end = 0;  // Behind STOP.
  };
  // Runs the pickle that begins at `start`. A machine runs once.
  absl::StatusOr<Result> Run(absl::Span<const std::byte> bytes, std::size_t start);

  // Whether the failed run stopped because `bytes` ended: with more of them it may get further.
  bool ran_out() const { return ran_out_; }

 private:
  absl::Status Error(ErrorCode code, std::string_view message) const {
    return context_.Error(code, message);
  }
  absl::Status BadStack(std::string_view message) const {
    return Error(ErrorCode::kPickleBadStack, message);
  }

  absl::Status CheckProtocol();
  absl::Status Step(std::uint8_t opcode);
  absl::Status StepValue(std::uint8_t opcode);
  absl::Status StepContainer(std::uint8_t opcode);
  absl::Status StepObject(std::uint8_t opcode);

  // The input. Each fails with PICKLE_TRUNCATED at the end of the bytes.
  absl::StatusOr<std::string_view> Take(std::uint64_t size_bytes);
  absl::StatusOr<std::uint64_t> TakeUnsigned(std::size_t size_bytes);
  absl::StatusOr<std::string_view> TakeSized(std::size_t length_bytes, std::uint64_t limit,
                                             std::string_view what);
  absl::StatusOr<std::string_view> TakeLine();

  // The stack. Nothing below the last mark is in reach.
  std::size_t Floor() const { return marks_.empty() ? 0 : marks_.back(); }
  std::size_t Reach() const { return stack_.size() - Floor(); }
  absl::Status Push(NodeId node);
  absl::StatusOr<NodeId> Pop();
  absl::Status NeedItems(std::size_t count) const;
  // Removes the last mark; what was pushed since then begins at the result.
  absl::StatusOr<std::size_t> PopMark();

  absl::Status PushText(NodeKind kind, std::string_view text);
  absl::Status PushUtf8(std::size_t length_bytes);
  absl::Status PushPython2String(std::size_t length_bytes, bool is_signed);
  absl::Status PushLong(std::size_t length_bytes);
  absl::Status PushSmallInt(std::int64_t value);
  absl::Status PushTuple(std::size_t count);
  absl::Status PushSequenceSinceMark(NodeKind kind);
  absl::Status PushDictSinceMark();
  absl::Status AppendFrom(std::size_t begin);
  absl::Status SetItemsFrom(std::size_t begin);
  absl::Status AddItemsFrom(std::size_t begin);
  absl::Status MemoPut(std::uint64_t index);
  absl::Status MemoGet(std::uint64_t index);
  absl::Status CheckFrame();
  absl::Status PushGlobal(std::string_view module, std::string_view name);
  absl::Status StackGlobal();
  absl::Status Reduce();
  absl::Status NewObj(bool with_keywords);
  absl::Status BuildTop();
  absl::Status Persistent();

  ParseContext& context_;
  Tree& tree_;
  DictKeys& keys_;
  ObjectFactory* const factory_;
  absl::Span<const std::byte> bytes_;
  std::size_t at_ = 0;
  bool ran_out_ = false;
  std::vector<NodeId> stack_;
  std::vector<std::size_t> marks_;
  std::vector<NodeId> memo_;
  std::uint64_t memo_entries_ = 0;
  // One node each for what occurs everywhere and cannot change.
  NodeId none_;
  NodeId true_;
  NodeId false_;
  NodeId empty_tuple_;
  std::vector<NodeId> small_ints_;
  std::unordered_map<std::string, NodeId> symbols_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_PICKLE_MACHINE_H_
