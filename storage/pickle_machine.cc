#include "storage/pickle_machine.h"

#include <algorithm>
#include <bit>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "base/status_macros.h"
#include "storage/bytes.h"
#include "storage/symbols.h"

namespace relight::storage {
namespace {

enum Opcode : std::uint8_t {
  kMark = 0x28,
  kEmptyTuple = 0x29,
  kStop = 0x2E,
  kPop = 0x30,
  kPopMark = 0x31,
  kDup = 0x32,
  kBinBytes = 0x42,
  kShortBinBytes = 0x43,
  kBinFloat = 0x47,
  kBinInt = 0x4A,
  kBinInt1 = 0x4B,
  kBinInt2 = 0x4D,
  kNone = 0x4E,
  kBinPersId = 0x51,
  kReduce = 0x52,
  kBinString = 0x54,
  kShortBinString = 0x55,
  kBinUnicode = 0x58,
  kEmptyList = 0x5D,
  kAppend = 0x61,
  kBuild = 0x62,
  kGlobal = 0x63,
  kDict = 0x64,
  kAppends = 0x65,
  kBinGet = 0x68,
  kLongBinGet = 0x6A,
  kList = 0x6C,
  kBinPut = 0x71,
  kLongBinPut = 0x72,
  kSetItem = 0x73,
  kTuple = 0x74,
  kSetItems = 0x75,
  kEmptyDict = 0x7D,
  kProto = 0x80,
  kNewObj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8A,
  kLong4 = 0x8B,
  kShortBinUnicode = 0x8C,
  kBinUnicode8 = 0x8D,
  kBinBytes8 = 0x8E,
  kEmptySet = 0x8F,
  kAddItems = 0x90,
  kFrozenSet = 0x91,
  kNewObjEx = 0x92,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95,
  kByteArray8 = 0x96,
};

constexpr std::uint64_t kMinProtocol = 2;
constexpr std::uint64_t kMaxProtocol = 5;

// UTF-8 as Python's "surrogatepass" writes it: well-formed but for surrogates, ED A0..BF xx.
bool IsUtf8WithSurrogates(std::string_view text) {
  while (true) {
    const std::size_t lead = text.find('\xED');
    if (lead == std::string_view::npos) return IsUtf8(text);
    const bool surrogate = text.size() - lead >= 3 &&
                           static_cast<std::uint8_t>(text[lead + 1]) >= 0xA0 &&
                           static_cast<std::uint8_t>(text[lead + 1]) <= 0xBF &&
                           (static_cast<std::uint8_t>(text[lead + 2]) & 0xC0) == 0x80;
    // Any other sequence that ED leads has three bytes, which IsUtf8 judges with what is before.
    const std::size_t end = surrogate ? lead : std::min(lead + 3, text.size());
    if (!IsUtf8(text.substr(0, end))) return false;
    text.remove_prefix(std::min(lead + 3, text.size()));
  }
}

bool IsSymbolPart(std::string_view text) {
  if (text.empty() || !IsUtf8(text)) return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<std::uint8_t>(c) > 0x20 && c != 0x7F; });
}

}  // namespace

PickleMachine::PickleMachine(ParseContext& context, DictKeys& keys, ObjectFactory* factory)
    : context_(context),
      tree_(context.tree()),
      keys_(keys),
      factory_(factory),
      none_(tree_.Add(NodeKind::kNone)),
      true_(tree_.AddBool(true)),
      false_(tree_.AddBool(false)),
      empty_tuple_(tree_.Add(NodeKind::kTuple)),
      small_ints_(256, kNoNode) {}

absl::StatusOr<PickleMachine::Result> PickleMachine::Run(absl::Span<const std::byte> bytes,
                                                         std::size_t start) {
  bytes_ = bytes;
  at_ = start;
  context_.set_offset(at_);
  RELIGHT_RETURN_IF_ERROR(CheckProtocol());
  while (true) {
    context_.set_offset(at_);
    RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t opcode, TakeUnsigned(1));
    if (opcode == kStop) break;
    RELIGHT_RETURN_IF_ERROR(Step(static_cast<std::uint8_t>(opcode)));
    if (tree_.size() > context_.limits().max_nodes) {
      return Error(ErrorCode::kLimitExceeded, absl::StrCat("holds more values than the limit of ",
                                                           context_.limits().max_nodes));
    }
  }
  if (!marks_.empty()) return BadStack("stops with an open mark");
  if (stack_.size() != 1) {
    return BadStack(absl::StrCat("stops with ", stack_.size(), " values on the stack, not one"));
  }
  return Result{stack_[0], at_};
}

absl::Status PickleMachine::CheckProtocol() {
  if (at_ == bytes_.size()) {
    ran_out_ = true;
    return Error(ErrorCode::kPickleTruncated, "the pickle has no bytes");
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t opcode, TakeUnsigned(1));
  if (opcode != kProto) {
    return Error(ErrorCode::kUnsupportedFormat,
                 "does not begin with a protocol number: pickle protocols 0 and 1 are not read");
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t protocol, TakeUnsigned(1));
  if (protocol < kMinProtocol || protocol > kMaxProtocol) {
    return Error(ErrorCode::kUnsupportedFormat,
                 absl::StrCat("has pickle protocol ", protocol, "; 2 to 5 are read"));
  }
  return absl::OkStatus();
}

absl::Status PickleMachine::Step(std::uint8_t opcode) {
  switch (opcode) {
    case kMark:
      if (marks_.size() >= context_.limits().max_open_marks) {
        return Error(
            ErrorCode::kLimitExceeded,
            absl::StrCat("has more than ", context_.limits().max_open_marks, " open marks"));
      }
      marks_.push_back(stack_.size());
      return absl::OkStatus();
    case kPop:
      return Pop().status();
    case kPopMark: {
      RELIGHT_ASSIGN_OR_RETURN(const std::size_t begin, PopMark());
      stack_.resize(begin);
      return absl::OkStatus();
    }
    case kDup:
      RELIGHT_RETURN_IF_ERROR(NeedItems(1));
      return Push(stack_.back());
    case kBinPut:
    case kLongBinPut: {
      RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t index, TakeUnsigned(opcode == kBinPut ? 1 : 4));
      return MemoPut(index);
    }
    case kMemoize:
      return MemoPut(memo_entries_);
    case kBinGet:
    case kLongBinGet: {
      RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t index, TakeUnsigned(opcode == kBinGet ? 1 : 4));
      return MemoGet(index);
    }
    case kFrame:
      return CheckFrame();
    default:
      return StepValue(opcode);
  }
}

absl::Status PickleMachine::StepValue(std::uint8_t opcode) {
  switch (opcode) {
    case kNone:
      return Push(none_);
    case kNewTrue:
      return Push(true_);
    case kNewFalse:
      return Push(false_);
    case kBinInt1:
    case kBinInt2: {
      RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t value, TakeUnsigned(opcode == kBinInt1 ? 1 : 2));
      return PushSmallInt(static_cast<std::int64_t>(value));
    }
    case kBinInt: {
      RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t value, TakeUnsigned(4));
      return PushSmallInt(static_cast<std::int32_t>(static_cast<std::uint32_t>(value)));
    }
    case kLong1:
      return PushLong(1);
    case kLong4:
      return PushLong(4);
    case kBinFloat: {
      RELIGHT_ASSIGN_OR_RETURN(const std::string_view bits, Take(8));
      return Push(tree_.AddFloat(std::bit_cast<double>(LoadBig64(bits.data()))));
    }
    case kShortBinUnicode:
      return PushUtf8(1);
    case kBinUnicode:
      return PushUtf8(4);
    case kBinUnicode8:
      return PushUtf8(8);
    case kShortBinString:
      return PushPython2String(1, false);
    case kBinString:
      return PushPython2String(4, true);
    case kShortBinBytes:
    case kBinBytes:
    case kBinBytes8:
    case kByteArray8: {
      const std::size_t length_bytes = opcode == kShortBinBytes ? 1 : opcode == kBinBytes ? 4 : 8;
      RELIGHT_ASSIGN_OR_RETURN(
          const std::string_view bytes,
          TakeSized(length_bytes, context_.limits().max_blob_bytes, "a bytes object"));
      return PushText(opcode == kByteArray8 ? NodeKind::kByteArray : NodeKind::kBytes, bytes);
    }
    default:
      return StepContainer(opcode);
  }
}

absl::Status PickleMachine::StepContainer(std::uint8_t opcode) {
  switch (opcode) {
    case kEmptyTuple:
      return Push(empty_tuple_);
    case kTuple1:
      return PushTuple(1);
    case kTuple2:
      return PushTuple(2);
    case kTuple3:
      return PushTuple(3);
    case kTuple:
      return PushSequenceSinceMark(NodeKind::kTuple);
    case kEmptyList:
      return Push(tree_.Add(NodeKind::kList));
    case kList:
      return PushSequenceSinceMark(NodeKind::kList);
    case kEmptyDict:
      return Push(tree_.Add(NodeKind::kDict));
    case kDict:
      return PushDictSinceMark();
    case kEmptySet:
      return Push(tree_.Add(NodeKind::kSet));
    case kFrozenSet:
      return PushSequenceSinceMark(NodeKind::kFrozenSet);
    case kAppend:
      RELIGHT_RETURN_IF_ERROR(NeedItems(2));
      return AppendFrom(stack_.size() - 1);
    case kSetItem:
      RELIGHT_RETURN_IF_ERROR(NeedItems(3));
      return SetItemsFrom(stack_.size() - 2);
    case kAppends:
    case kSetItems:
    case kAddItems: {
      RELIGHT_ASSIGN_OR_RETURN(const std::size_t begin, PopMark());
      if (begin <= Floor()) return BadStack("adds to a container that is not on the stack");
      if (opcode == kAppends) return AppendFrom(begin);
      return opcode == kSetItems ? SetItemsFrom(begin) : AddItemsFrom(begin);
    }
    default:
      return StepObject(opcode);
  }
}

absl::Status PickleMachine::StepObject(std::uint8_t opcode) {
  switch (opcode) {
    case kGlobal: {
      RELIGHT_ASSIGN_OR_RETURN(const std::string_view module, TakeLine());
      RELIGHT_ASSIGN_OR_RETURN(const std::string_view name, TakeLine());
      return PushGlobal(module, name);
    }
    case kStackGlobal:
      return StackGlobal();
    case kReduce:
      return Reduce();
    case kNewObj:
      return NewObj(false);
    case kNewObjEx:
      return NewObj(true);
    case kBuild:
      return BuildTop();
    case kBinPersId:
      return Persistent();
    default:
      return Error(ErrorCode::kPickleBadOpcode,
                   absl::StrCat("opcode 0x", absl::Hex(opcode, absl::kZeroPad2),
                                " is not one that torch.save writes"));
  }
}

absl::StatusOr<std::string_view> PickleMachine::Take(std::uint64_t size_bytes) {
  const std::size_t left = bytes_.size() - at_;
  if (size_bytes > left) {
    ran_out_ = true;
    return Error(ErrorCode::kPickleTruncated,
                 absl::StrCat("needs ", size_bytes, " more bytes, ", left, " are left"));
  }
  const std::string_view taken = AsText(bytes_.subspan(at_, static_cast<std::size_t>(size_bytes)));
  at_ += taken.size();
  return taken;
}

absl::StatusOr<std::uint64_t> PickleMachine::TakeUnsigned(std::size_t size_bytes) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string_view bytes, Take(size_bytes));
  std::uint64_t value = 0;
  std::memcpy(&value, bytes.data(), size_bytes);
  return value;
}

absl::StatusOr<std::string_view> PickleMachine::TakeSized(std::size_t length_bytes,
                                                          std::uint64_t limit,
                                                          std::string_view what) {
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t length, TakeUnsigned(length_bytes));
  if (length > limit) {
    return Error(ErrorCode::kLimitExceeded, absl::StrCat("holds ", std::string(what), " of ",
                                                         length, " bytes, the limit is ", limit));
  }
  return Take(length);
}

absl::StatusOr<std::string_view> PickleMachine::TakeLine() {
  const std::uint64_t limit = context_.limits().max_global_line_bytes;
  const std::string_view rest = AsText(bytes_.subspan(at_));
  const std::size_t end = rest.substr(0, static_cast<std::size_t>(limit) + 1).find('\n');
  if (end == std::string_view::npos) {
    if (rest.size() > limit) {
      return Error(ErrorCode::kLimitExceeded,
                   absl::StrCat("holds a class name of more than ", limit, " bytes"));
    }
    ran_out_ = true;
    return Error(ErrorCode::kPickleTruncated, "ends within a class name");
  }
  at_ += end + 1;
  return rest.substr(0, end);
}

absl::Status PickleMachine::Push(NodeId node) {
  if (stack_.size() >= context_.limits().max_stack_items) {
    return Error(
        ErrorCode::kLimitExceeded,
        absl::StrCat("puts more than ", context_.limits().max_stack_items, " values on the stack"));
  }
  stack_.push_back(node);
  return absl::OkStatus();
}

absl::Status PickleMachine::NeedItems(std::size_t count) const {
  if (Reach() >= count) return absl::OkStatus();
  return BadStack(absl::StrCat("takes ", count, " values where ", Reach(), " are on the stack"));
}

absl::StatusOr<NodeId> PickleMachine::Pop() {
  RELIGHT_RETURN_IF_ERROR(NeedItems(1));
  const NodeId node = stack_.back();
  stack_.pop_back();
  return node;
}

absl::StatusOr<std::size_t> PickleMachine::PopMark() {
  if (marks_.empty()) return BadStack("needs a mark where there is none");
  const std::size_t begin = marks_.back();
  marks_.pop_back();
  return begin;
}

absl::Status PickleMachine::PushText(NodeKind kind, std::string_view text) {
  return Push(tree_.AddText(kind, text));
}

absl::Status PickleMachine::PushUtf8(std::size_t length_bytes) {
  RELIGHT_ASSIGN_OR_RETURN(const std::string_view text,
                           TakeSized(length_bytes, context_.limits().max_string_bytes, "a string"));
  if (!IsUtf8WithSurrogates(text)) {
    return Error(ErrorCode::kPickleBadValue, "holds a string that is not UTF-8");
  }
  return PushText(NodeKind::kString, text);
}

absl::Status PickleMachine::PushPython2String(std::size_t length_bytes, bool is_signed) {
  constexpr std::uint64_t kSignBit = std::uint64_t{1} << 31;
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t length, TakeUnsigned(length_bytes));
  if (is_signed && (length & kSignBit) != 0) {
    return Error(ErrorCode::kPickleBadValue, "holds a string of negative length");
  }
  if (length > context_.limits().max_string_bytes) {
    return Error(ErrorCode::kLimitExceeded,
                 absl::StrCat("holds a string of ", length, " bytes, the limit is ",
                              context_.limits().max_string_bytes));
  }
  RELIGHT_ASSIGN_OR_RETURN(const std::string_view text, Take(length));
  return PushText(IsUtf8(text) ? NodeKind::kString : NodeKind::kBytes, text);
}

absl::Status PickleMachine::PushLong(std::size_t length_bytes) {
  constexpr std::uint64_t kSignBit = std::uint64_t{1} << 31;
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t length, TakeUnsigned(length_bytes));
  if (length_bytes == 4 && (length & kSignBit) != 0) {
    return Error(ErrorCode::kPickleBadValue, "holds an integer of negative length");
  }
  if (length > context_.limits().max_long_bytes) {
    return Error(ErrorCode::kLimitExceeded,
                 absl::StrCat("holds an integer of ", length, " bytes, the limit is ",
                              context_.limits().max_long_bytes));
  }
  RELIGHT_ASSIGN_OR_RETURN(std::string_view bytes, Take(length));
  // Sign bytes that repeat the bit below them add nothing.
  const auto redundant = [](std::string_view b) {
    const auto last = static_cast<std::uint8_t>(b[b.size() - 1]);
    const bool negative = (static_cast<std::uint8_t>(b[b.size() - 2]) & 0x80) != 0;
    return last == (negative ? 0xFF : 0x00);
  };
  while (bytes.size() > 1 && redundant(bytes)) bytes.remove_suffix(1);
  if (bytes.size() > 8) return PushText(NodeKind::kBigInt, bytes);
  std::uint64_t value = 0;
  if (!bytes.empty()) {
    std::memcpy(&value, bytes.data(), bytes.size());
    const bool negative = (static_cast<std::uint8_t>(bytes.back()) & 0x80) != 0;
    if (negative && bytes.size() < 8) value |= ~std::uint64_t{0} << (8 * bytes.size());
  }
  return PushSmallInt(static_cast<std::int64_t>(value));
}

absl::Status PickleMachine::PushSmallInt(std::int64_t value) {
  if (value < 0 || value >= static_cast<std::int64_t>(small_ints_.size())) {
    return Push(tree_.AddInt(value));
  }
  NodeId& shared = small_ints_[static_cast<std::size_t>(value)];
  if (shared == kNoNode) shared = tree_.AddInt(value);
  return Push(shared);
}

absl::Status PickleMachine::PushTuple(std::size_t count) {
  RELIGHT_RETURN_IF_ERROR(NeedItems(count));
  const NodeId tuple = tree_.Add(NodeKind::kTuple);
  const std::size_t begin = stack_.size() - count;
  for (std::size_t i = begin; i < stack_.size(); ++i) tree_.Append(tuple, stack_[i]);
  stack_.resize(begin);
  return Push(tuple);
}

absl::Status PickleMachine::PushSequenceSinceMark(NodeKind kind) {
  RELIGHT_ASSIGN_OR_RETURN(const std::size_t begin, PopMark());
  const NodeId sequence = tree_.Add(kind);
  for (std::size_t i = begin; i < stack_.size(); ++i) {
    if (kind == NodeKind::kFrozenSet) RELIGHT_RETURN_IF_ERROR(keys_.CheckHashable(stack_[i]));
    tree_.Append(sequence, stack_[i]);
  }
  stack_.resize(begin);
  return Push(sequence);
}

absl::Status PickleMachine::PushDictSinceMark() {
  RELIGHT_ASSIGN_OR_RETURN(const std::size_t begin, PopMark());
  const NodeId dict = tree_.Add(NodeKind::kDict);
  stack_.insert(stack_.begin() + static_cast<std::ptrdiff_t>(begin), dict);
  return SetItemsFrom(begin + 1);
}

absl::Status PickleMachine::AppendFrom(std::size_t begin) {
  const NodeId target = stack_[begin - 1];
  for (std::size_t i = begin; i < stack_.size(); ++i) {
    if (tree_.Is(target, NodeKind::kList)) {
      tree_.Append(target, stack_[i]);
    } else if (tree_.Is(target, NodeKind::kOpaque)) {
      tree_.mutable_opaque(target).appended.push_back(stack_[i]);
    } else {
      return BadStack(absl::StrCat("appends to a ", std::string(Name(tree_.kind(target)))));
    }
  }
  stack_.resize(begin);
  return absl::OkStatus();
}

absl::Status PickleMachine::SetItemsFrom(std::size_t begin) {
  const NodeId target = stack_[begin - 1];
  const bool is_dict = tree_.IsDict(target);
  if (!is_dict && !tree_.Is(target, NodeKind::kOpaque)) {
    return BadStack(absl::StrCat("sets an item of a ", std::string(Name(tree_.kind(target)))));
  }
  if ((stack_.size() - begin) % 2 != 0) {
    return Error(ErrorCode::kPickleBadValue, "sets a key without a value");
  }
  for (std::size_t i = begin; i < stack_.size(); i += 2) {
    RELIGHT_RETURN_IF_ERROR(keys_.Insert(target, stack_[i]));
    if (is_dict) {
      tree_.SetItem(target, stack_[i], stack_[i + 1]);
    } else {
      tree_.mutable_opaque(target).set_items.emplace_back(stack_[i], stack_[i + 1]);
    }
  }
  stack_.resize(begin);
  return absl::OkStatus();
}

absl::Status PickleMachine::AddItemsFrom(std::size_t begin) {
  const NodeId target = stack_[begin - 1];
  for (std::size_t i = begin; i < stack_.size(); ++i) {
    RELIGHT_RETURN_IF_ERROR(keys_.CheckHashable(stack_[i]));
    if (tree_.Is(target, NodeKind::kSet)) {
      tree_.Append(target, stack_[i]);
    } else if (tree_.Is(target, NodeKind::kOpaque)) {
      tree_.mutable_opaque(target).appended.push_back(stack_[i]);
    } else {
      return BadStack(absl::StrCat("adds to a ", std::string(Name(tree_.kind(target)))));
    }
  }
  stack_.resize(begin);
  return absl::OkStatus();
}

absl::Status PickleMachine::MemoPut(std::uint64_t index) {
  RELIGHT_RETURN_IF_ERROR(NeedItems(1));
  // Picklers number their entries without gaps; the slack is for those that skip some.
  if (index > 2 * memo_entries_ + 256) {
    return Error(ErrorCode::kPickleBadMemo,
                 absl::StrCat("stores memo entry ", index, " after ", memo_entries_, " entries"));
  }
  if (index >= memo_.size()) memo_.resize(static_cast<std::size_t>(index) + 1, kNoNode);
  NodeId& slot = memo_[static_cast<std::size_t>(index)];
  if (slot == kNoNode) ++memo_entries_;
  slot = stack_.back();
  return absl::OkStatus();
}

absl::Status PickleMachine::MemoGet(std::uint64_t index) {
  if (index >= memo_.size() || memo_[static_cast<std::size_t>(index)] == kNoNode) {
    return Error(ErrorCode::kPickleBadMemo,
                 absl::StrCat("fetches memo entry ", index, ", which was never stored"));
  }
  return Push(memo_[static_cast<std::size_t>(index)]);
}

absl::Status PickleMachine::CheckFrame() {
  RELIGHT_ASSIGN_OR_RETURN(const std::uint64_t frame, TakeUnsigned(8));
  if (frame <= bytes_.size() - at_) return absl::OkStatus();
  ran_out_ = true;
  return Error(ErrorCode::kPickleTruncated, absl::StrCat("has a frame of ", frame, " bytes, ",
                                                         bytes_.size() - at_, " are left"));
}

absl::Status PickleMachine::PushGlobal(std::string_view module, std::string_view name) {
  if (!IsSymbolPart(module) || !IsSymbolPart(name)) {
    return Error(ErrorCode::kPickleBadValue, "names a class by something that is not a name");
  }
  const std::string_view modern_module = ModernModule(module);
  const std::string_view modern_name = ModernName(module, name);
  if (IsForbiddenSymbol(modern_module, modern_name)) {
    return Error(ErrorCode::kUnsafeGlobal,
                 absl::StrCat("names ",
                              Escape(absl::StrCat(std::string(modern_module), ".",
                                                  std::string(modern_name))),
                              ", which no checkpoint needs: the file wants to run code; nothing "
                              "was run, do not open it with Python"));
  }
  if (factory_ == nullptr) {
    return Error(ErrorCode::kPickleBadValue, "names a class where only plain values may stand");
  }
  const std::string key = absl::StrCat(std::string(modern_module), " ", std::string(modern_name));
  const auto known = symbols_.find(key);
  if (known != symbols_.end()) return Push(known->second);
  RELIGHT_ASSIGN_OR_RETURN(const NodeId symbol, factory_->MakeSymbol(modern_module, modern_name));
  symbols_.emplace(key, symbol);
  return Push(symbol);
}

absl::Status PickleMachine::StackGlobal() {
  RELIGHT_RETURN_IF_ERROR(NeedItems(2));
  const NodeId name = stack_[stack_.size() - 1];
  const NodeId module = stack_[stack_.size() - 2];
  if (!tree_.Is(name, NodeKind::kString) || !tree_.Is(module, NodeKind::kString)) {
    return BadStack("names a class by something that is not a string");
  }
  if (tree_.text(name).size() > context_.limits().max_global_line_bytes ||
      tree_.text(module).size() > context_.limits().max_global_line_bytes) {
    return Error(ErrorCode::kLimitExceeded,
                 absl::StrCat("holds a class name of more than ",
                              context_.limits().max_global_line_bytes, " bytes"));
  }
  stack_.resize(stack_.size() - 2);
  // Copies, because the tree's text moves when a node is added.
  const std::string module_text(tree_.text(module));
  const std::string name_text(tree_.text(name));
  return PushGlobal(module_text, name_text);
}

absl::Status PickleMachine::Reduce() {
  RELIGHT_RETURN_IF_ERROR(NeedItems(2));
  const NodeId arguments = stack_[stack_.size() - 1];
  const NodeId callable = stack_[stack_.size() - 2];
  if (factory_ == nullptr) {
    return Error(ErrorCode::kPickleBadValue, "calls something where only plain values may stand");
  }
  if (!tree_.Is(arguments, NodeKind::kTuple)) {
    return BadStack(absl::StrCat("calls with a ", std::string(Name(tree_.kind(arguments))),
                                 " for arguments, not a tuple"));
  }
  stack_.resize(stack_.size() - 2);
  RELIGHT_ASSIGN_OR_RETURN(const NodeId result,
                           factory_->Call(callable, arguments, OpaqueMake::kReduce));
  return Push(result);
}

absl::Status PickleMachine::NewObj(bool with_keywords) {
  const std::size_t count = with_keywords ? 3 : 2;
  RELIGHT_RETURN_IF_ERROR(NeedItems(count));
  if (factory_ == nullptr) {
    return Error(ErrorCode::kPickleBadValue, "makes an object where only plain values may stand");
  }
  const NodeId type = stack_[stack_.size() - count];
  NodeId arguments = stack_[stack_.size() - count + 1];
  if (!tree_.Is(arguments, NodeKind::kTuple)) {
    return BadStack("makes an object from arguments that are not a tuple");
  }
  OpaqueMake how = OpaqueMake::kNewObj;
  if (with_keywords) {
    const NodeId keywords = stack_.back();
    if (!tree_.IsDict(keywords)) {
      return BadStack("makes an object with keywords that are not a dict");
    }
    // Without keywords it is the same as NEWOBJ.
    if (!tree_.pairs(keywords).empty()) {
      const NodeId both = tree_.Add(NodeKind::kTuple);
      tree_.Append(both, arguments);
      tree_.Append(both, keywords);
      arguments = both;
      how = OpaqueMake::kNewObjEx;
    }
  }
  stack_.resize(stack_.size() - count);
  RELIGHT_ASSIGN_OR_RETURN(const NodeId result, factory_->Call(type, arguments, how));
  return Push(result);
}

absl::Status PickleMachine::BuildTop() {
  RELIGHT_RETURN_IF_ERROR(NeedItems(2));
  if (factory_ == nullptr) {
    return Error(ErrorCode::kPickleBadValue, "sets a state where only plain values may stand");
  }
  const NodeId state = stack_.back();
  stack_.pop_back();
  return factory_->Build(stack_.back(), state);
}

absl::Status PickleMachine::Persistent() {
  RELIGHT_ASSIGN_OR_RETURN(const NodeId id, Pop());
  if (factory_ == nullptr) {
    return Error(ErrorCode::kPickleBadValue, "names a storage where only plain values may stand");
  }
  RELIGHT_ASSIGN_OR_RETURN(const NodeId object, factory_->LoadPersistent(id));
  return Push(object);
}

}  // namespace relight::storage
