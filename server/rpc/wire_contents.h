// Walks InferTensorContents, the typed form of a tensor, without storing it: a hostile message
// cannot make it grow, and the elements go straight to where they are wanted.
#ifndef RELIGHT_SERVER_RPC_WIRE_CONTENTS_H_
#define RELIGHT_SERVER_RPC_WIRE_CONTENTS_H_

#include <cstdint>

#include "server/rpc/wire_reader.h"

namespace relight::rpc {

// The field numbers of InferTensorContents.
enum class ContentKind : std::uint32_t {
  kBool = 1,
  kInt = 2,
  kInt64 = 3,
  kUInt = 4,
  kUInt64 = 5,
  kFp32 = 6,
  kFp64 = 7,
  kBytes = 8,
};
inline constexpr std::uint32_t kContentKinds = 9;  // One past the last.

inline bool IsContentKind(std::uint32_t field) { return field >= 1 && field < kContentKinds; }

inline WireType ElementType(ContentKind kind) {
  switch (kind) {
    case ContentKind::kFp32:
      return WireType::kFixed32;
    case ContentKind::kFp64:
      return WireType::kFixed64;
    case ContentKind::kBytes:
      return WireType::kLengthDelimited;
    default:
      return WireType::kVarint;
  }
}

inline bool ReadElement(WireReader& reader, ContentKind kind, std::uint64_t& bits) {
  switch (ElementType(kind)) {
    case WireType::kFixed32: {
      std::uint32_t low = 0;
      if (!reader.ReadFixed32(low)) return false;
      bits = low;
      return true;
    }
    case WireType::kFixed64:
      return reader.ReadFixed64(bits);
    case WireType::kLengthDelimited: {
      WireReader inside = reader;
      return reader.ReadDelimited(inside);
    }
    default:
      return reader.ReadVarint(bits);
  }
}

// Calls visit(kind, bits) for each element: `bits` is the varint or the fixed number as it lies on
// the wire, and 0 for an element of bytes_contents. Packed and unpacked fields are both read.
template <typename Visitor>
bool VisitContents(WireReader reader, Visitor&& visit) {
  while (!reader.AtEnd()) {
    WireTag tag;
    if (!reader.ReadTag(tag)) return false;
    if (!IsContentKind(tag.field)) {
      if (!reader.SkipField(tag)) return false;
      continue;
    }
    const auto kind = static_cast<ContentKind>(tag.field);
    std::uint64_t bits = 0;
    if (tag.type == ElementType(kind)) {
      if (!ReadElement(reader, kind, bits)) return false;
      visit(kind, bits);
    } else if (tag.type == WireType::kLengthDelimited) {
      WireReader packed = reader;
      if (!reader.ReadDelimited(packed)) return false;
      while (!packed.AtEnd()) {
        if (!ReadElement(packed, kind, bits)) return false;
        visit(kind, bits);
      }
    } else if (!reader.SkipField(tag)) {
      return false;
    }
  }
  return true;
}

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_WIRE_CONTENTS_H_
