#include "server/rpc/wire_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/escape.h"

namespace relight::rpc {
namespace {

static_assert(std::endian::native == std::endian::little, "fixed fields are read as they lie");

constexpr int kMaxVarintBytes = 10;
constexpr int kMaxTagBytes = 5;
constexpr int kMaxSizeBytes = 5;
constexpr std::uint64_t kMaxSize = 0x7fffffff;

}  // namespace

WireReader::WireReader(absl::Span<const ByteSpan> slices, WireError& error) : error_(&error) {
  for (const ByteSpan& slice : slices) left_ += slice.size();
  end_position_ = left_;
  if (slices.empty()) return;
  slice_ = slices.data();
  cursor_ = slice_->data();
  slice_end_ = cursor_ + slice_->size();
}

bool WireReader::Fail(std::string_view what) {
  if (error_->what.empty()) *error_ = {what, position()};
  return false;
}

void WireReader::NextSlice() {
  while (cursor_ == slice_end_) {
    ++slice_;
    cursor_ = slice_->data();
    slice_end_ = cursor_ + slice_->size();
  }
}

bool WireReader::ReadByte(std::uint8_t& value) {
  if (left_ == 0) return Fail("the message ends within a field");
  if (cursor_ == slice_end_) NextSlice();
  value = static_cast<std::uint8_t>(*cursor_++);
  --left_;
  return true;
}

bool WireReader::ReadVarint(std::uint64_t& value) {
  value = 0;
  for (int i = 0; i < kMaxVarintBytes; ++i) {
    std::uint8_t byte = 0;
    if (!ReadByte(byte)) return false;
    // The tenth byte's upper bits fall off, as in protobuf.
    value |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) return true;
  }
  return Fail("a number has more than 10 bytes");
}

bool WireReader::ReadTag(WireTag& tag) {
  std::uint32_t value = 0;
  for (int i = 0; i < kMaxTagBytes; ++i) {
    std::uint8_t byte = 0;
    if (!ReadByte(byte)) return false;
    value |= static_cast<std::uint32_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      tag = {value >> 3, static_cast<WireType>(value & 7)};
      if (tag.field == 0) return Fail("field number 0");
      return true;
    }
  }
  return Fail("a field's tag has more than 5 bytes");
}

bool WireReader::ReadSize(std::uint64_t& size) {
  size = 0;
  for (int i = 0; i < kMaxSizeBytes; ++i) {
    std::uint8_t byte = 0;
    if (!ReadByte(byte)) return false;
    size |= static_cast<std::uint64_t>(byte & 0x7f) << (7 * i);
    if (byte >= 0x80) continue;
    if (size > kMaxSize) return Fail("a length of 2 GiB or more");
    if (size > left_) return Fail("a length that goes beyond the message");
    return true;
  }
  return Fail("a length has more than 5 bytes");
}

void WireReader::Copy(std::byte* out, std::uint64_t size) {
  left_ -= size;
  while (size > 0) {
    if (cursor_ == slice_end_) NextSlice();
    const auto part = std::min(size, static_cast<std::uint64_t>(slice_end_ - cursor_));
    std::memcpy(out, cursor_, part);
    out += part;
    cursor_ += part;
    size -= part;
  }
}

bool WireReader::ReadFixed32(std::uint32_t& value) {
  if (left_ < sizeof(value)) return Fail("the message ends within a field");
  Copy(reinterpret_cast<std::byte*>(&value), sizeof(value));
  return true;
}

bool WireReader::ReadFixed64(std::uint64_t& value) {
  if (left_ < sizeof(value)) return Fail("the message ends within a field");
  Copy(reinterpret_cast<std::byte*>(&value), sizeof(value));
  return true;
}

bool WireReader::Skip(std::uint64_t size) {
  if (size > left_) return Fail("the message ends within a field");
  left_ -= size;
  while (size > 0) {
    if (cursor_ == slice_end_) NextSlice();
    const auto part = std::min(size, static_cast<std::uint64_t>(slice_end_ - cursor_));
    cursor_ += part;
    size -= part;
  }
  return true;
}

bool WireReader::ReadDelimited(WireReader& inside) {
  std::uint64_t size = 0;
  if (!ReadSize(size)) return false;
  inside = *this;
  inside.left_ = size;
  inside.end_position_ = position() + size;
  return Skip(size);
}

bool WireReader::ReadString(std::string& out) {
  std::uint64_t size = 0;
  if (!ReadSize(size)) return false;
  out.resize(size);
  Copy(reinterpret_cast<std::byte*>(out.data()), size);
  return IsUtf8(out) || Fail("a string that is not UTF-8");
}

void WireReader::TakeSlices(ByteSlices& out) {
  while (left_ > 0) {
    if (cursor_ == slice_end_) NextSlice();
    const auto part = std::min(left_, static_cast<std::uint64_t>(slice_end_ - cursor_));
    out.emplace_back(cursor_, part);
    cursor_ += part;
    left_ -= part;
  }
}

bool WireReader::ReadSlices(ByteSlices& out) {
  WireReader inside = *this;
  if (!ReadDelimited(inside)) return false;
  inside.TakeSlices(out);
  return true;
}

bool WireReader::SkipField(const WireTag& tag) {
  switch (tag.type) {
    case WireType::kVarint: {
      std::uint64_t ignored = 0;
      return ReadVarint(ignored);
    }
    case WireType::kFixed64:
      return Skip(8);
    case WireType::kFixed32:
      return Skip(4);
    case WireType::kLengthDelimited: {
      WireReader ignored = *this;
      return ReadDelimited(ignored);
    }
    case WireType::kStartGroup:
    case WireType::kEndGroup:
      return Fail("a group, which this protocol does not have");
  }
  return Fail("an unknown wire type");
}

}  // namespace relight::rpc
