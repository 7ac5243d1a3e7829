#include "server/rpc/typed_contents.h"

#include <cstring>
#include <limits>

#include "absl/status/status.h"
#include "server/rpc/concat.h"
#include "server/rpc/wire_encoder.h"

namespace relight::rpc {
namespace {

constexpr std::uint32_t kLengthDelimited = 2;

std::string_view FieldName(ContentKind kind) {
  switch (kind) {
    case ContentKind::kBool:
      return "bool_contents";
    case ContentKind::kInt:
      return "int_contents";
    case ContentKind::kInt64:
      return "int64_contents";
    case ContentKind::kUInt:
      return "uint_contents";
    case ContentKind::kUInt64:
      return "uint64_contents";
    case ContentKind::kFp32:
      return "fp32_contents";
    case ContentKind::kFp64:
      return "fp64_contents";
    case ContentKind::kBytes:
      return "bytes_contents";
  }
  return "contents";
}

absl::Status CheckKinds(const WireContents& contents, ContentKind wanted, DType dtype,
                        std::uint64_t count) {
  for (std::uint32_t i = 1; i < kContentKinds; ++i) {
    const auto kind = static_cast<ContentKind>(i);
    if (kind == wanted || contents.count(kind) == 0) continue;
    return absl::InvalidArgumentError(Concat(ProtocolName(dtype), " elements belong in ",
                                             FieldName(wanted), ", not in ", FieldName(kind)));
  }
  if (contents.count(wanted) == count) return absl::OkStatus();
  return absl::InvalidArgumentError(Concat(FieldName(wanted), " has ", contents.count(wanted),
                                           " elements, the shape needs ", count));
}

// Stores elements one after the other; remembers the first that does not fit.
class Unpacker {
 public:
  Unpacker(DType dtype, std::uint64_t count)
      : dtype_(dtype), item_size_(ItemSize(dtype)), out_(count * item_size_) {}

  void Add(std::uint64_t bits) {
    if (!misfits_ && !Fits(bits)) {
      misfits_ = true;
      misfit_ = bits;
    }
    if (dtype_ == DType::kBool) bits = bits != 0;
    std::memcpy(out_.data() + at_, &bits, item_size_);  // Little-endian: the low bytes are first.
    at_ += item_size_;
  }

  // int_contents are int32 on the wire: what was cut off there is not seen here.
  std::optional<std::int64_t> misfit() const {
    if (!misfits_) return std::nullopt;
    return IsSigned() ? static_cast<std::int32_t>(misfit_)
                      : static_cast<std::int64_t>(static_cast<std::uint32_t>(misfit_));
  }
  std::vector<std::byte> Take() && { return std::move(out_); }

 private:
  bool IsSigned() const { return dtype_ == DType::kInt8 || dtype_ == DType::kInt16; }

  template <typename T, typename Wire>
  static bool InRange(std::uint64_t bits) {
    const auto value = static_cast<Wire>(bits);
    return value >= std::numeric_limits<T>::min() && value <= std::numeric_limits<T>::max();
  }

  bool Fits(std::uint64_t bits) const {
    switch (dtype_) {
      case DType::kInt8:
        return InRange<std::int8_t, std::int32_t>(bits);
      case DType::kInt16:
        return InRange<std::int16_t, std::int32_t>(bits);
      case DType::kUInt8:
        return InRange<std::uint8_t, std::uint32_t>(bits);
      case DType::kUInt16:
        return InRange<std::uint16_t, std::uint32_t>(bits);
      default:
        return true;
    }
  }

  DType dtype_;
  std::size_t item_size_;
  std::vector<std::byte> out_;
  std::size_t at_ = 0;
  bool misfits_ = false;
  std::uint64_t misfit_ = 0;
};

template <typename T>
T Load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

// The varint of the element at `data`: narrow signed types are sign-extended, as protobuf does.
std::uint64_t VarintOf(DType dtype, const std::byte* data) {
  switch (dtype) {
    case DType::kBool:
      return Load<std::uint8_t>(data) != 0;
    case DType::kInt8:
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(Load<std::int8_t>(data)));
    case DType::kInt16:
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(Load<std::int16_t>(data)));
    case DType::kInt32:
      return static_cast<std::uint64_t>(static_cast<std::int64_t>(Load<std::int32_t>(data)));
    case DType::kUInt8:
      return Load<std::uint8_t>(data);
    case DType::kUInt16:
      return Load<std::uint16_t>(data);
    case DType::kUInt32:
      return Load<std::uint32_t>(data);
    default:
      return Load<std::uint64_t>(data);
  }
}

}  // namespace

std::optional<ContentKind> ContentKindOf(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return ContentKind::kBool;
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
      return ContentKind::kInt;
    case DType::kInt64:
      return ContentKind::kInt64;
    case DType::kUInt8:
    case DType::kUInt16:
    case DType::kUInt32:
      return ContentKind::kUInt;
    case DType::kUInt64:
      return ContentKind::kUInt64;
    case DType::kFloat32:
      return ContentKind::kFp32;
    case DType::kFloat64:
      return ContentKind::kFp64;
    default:
      return std::nullopt;
  }
}

absl::StatusOr<std::vector<std::byte>> UnpackContents(const WireContents& contents, DType dtype,
                                                      std::uint64_t count) {
  const std::optional<ContentKind> kind = ContentKindOf(dtype);
  if (!kind) {
    return absl::InvalidArgumentError(
        Concat(ProtocolName(dtype), " travels only as bytes, in raw_input_contents"));
  }
  if (absl::Status status = CheckKinds(contents, *kind, dtype, count); !status.ok()) {
    return status;
  }
  Unpacker unpacker(dtype, count);
  for (const ByteSlices& message : contents.messages) {
    WireError error;
    const bool ok = VisitContents(WireReader(message, error),
                                  [&](ContentKind, std::uint64_t bits) { unpacker.Add(bits); });
    if (!ok) return absl::InvalidArgumentError(Concat(error.what));
  }
  if (const std::optional<std::int64_t> misfit = unpacker.misfit()) {
    return absl::InvalidArgumentError(Concat(*misfit, " does not fit ", ProtocolName(dtype)));
  }
  return std::move(unpacker).Take();
}

std::string PackContents(DType dtype, const std::byte* data, std::uint64_t size_bytes) {
  std::string out;
  if (size_bytes == 0) return out;
  const ContentKind kind = *ContentKindOf(dtype);
  const auto field = static_cast<std::uint32_t>(kind);
  if (ElementType(kind) != WireType::kVarint) {
    AppendDelimited(out, field, {reinterpret_cast<const char*>(data), size_bytes});
    return out;
  }
  std::string packed;
  packed.reserve(size_bytes);
  const std::size_t item_size = ItemSize(dtype);
  for (std::uint64_t at = 0; at < size_bytes; at += item_size) {
    AppendVarint(packed, VarintOf(dtype, data + at));
  }
  AppendDelimited(out, field, packed);
  return out;
}

std::string PackBytesContents(absl::Span<const std::string> elements) {
  std::string out;
  for (const std::string& element : elements) {
    AppendTag(out, static_cast<std::uint32_t>(ContentKind::kBytes), kLengthDelimited);
    AppendVarint(out, element.size());
    out.append(element);
  }
  return out;
}

std::string PackRawBytes(absl::Span<const std::string> elements) {
  std::string out;
  for (const std::string& element : elements) {
    const auto size = static_cast<std::uint32_t>(element.size());
    out.append(reinterpret_cast<const char*>(&size), sizeof(size));
    out.append(element);
  }
  return out;
}

}  // namespace relight::rpc
