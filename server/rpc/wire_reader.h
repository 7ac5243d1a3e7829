// Reads protobuf's wire format from bytes that lie in several slices, without copying what the
// caller wants to keep as slices. It accepts what protobuf's own parser accepts, with one
// exception: groups, which proto3 cannot write, are refused.
//
// Every Read... returns false on malformed bytes and records where and why in the WireError that
// all readers of one message share. Thread-compatible. Borrows the slices and the WireError.
#ifndef RELIGHT_SERVER_RPC_WIRE_READER_H_
#define RELIGHT_SERVER_RPC_WIRE_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/types/span.h"
#include "server/serving/infer.h"

namespace relight::rpc {

using ByteSpan = absl::Span<const std::byte>;
using serving::ByteSlices;

enum class WireType : std::uint8_t {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

struct WireTag {
  std::uint32_t field = 0;
  WireType type = WireType::kVarint;

  bool Is(std::uint32_t number, WireType wanted) const { return field == number && type == wanted; }
};

struct WireError {
  std::string_view what;  // Empty: none. A literal.
  std::uint64_t position = 0;
};

class WireReader {
 public:
  WireReader(absl::Span<const ByteSpan> slices, WireError& error);

  bool AtEnd() const { return left_ == 0; }
  std::uint64_t left() const { return left_; }
  std::uint64_t position() const { return end_position_ - left_; }

  bool ReadTag(WireTag& tag);
  bool ReadVarint(std::uint64_t& value);
  bool ReadFixed32(std::uint32_t& value);
  bool ReadFixed64(std::uint64_t& value);
  // A length, and then that many bytes: as a reader over them, as a copy, or as slices that are
  // appended to `out`.
  bool ReadDelimited(WireReader& inside);
  bool ReadString(std::string& out);  // Refuses what is not UTF-8.
  bool ReadSlices(ByteSlices& out);
  // Appends what is left as slices.
  void TakeSlices(ByteSlices& out);
  // Passes over the value of a field that nobody wants.
  bool SkipField(const WireTag& tag);

  // Records the first error of the message; returns false.
  bool Fail(std::string_view what);

 private:
  bool ReadByte(std::uint8_t& value);
  bool ReadSize(std::uint64_t& size);
  bool Skip(std::uint64_t size);
  void Copy(std::byte* out, std::uint64_t size);  // REQUIRES: size <= left_.
  void NextSlice();

  const ByteSpan* slice_ = nullptr;  // The one that cursor_ is in.
  const std::byte* cursor_ = nullptr;
  const std::byte* slice_end_ = nullptr;
  std::uint64_t left_ = 0;          // Bytes up to the end of this reader's message.
  std::uint64_t end_position_ = 0;  // Where that is in the whole message.
  WireError* error_ = nullptr;
};

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_WIRE_READER_H_
