#include "server/rpc/wire_decoder.h"

#include <bit>
#include <utility>

#include "absl/status/status.h"
#include "server/rpc/concat.h"

namespace relight::rpc {
namespace {

constexpr WireType kBytes = WireType::kLengthDelimited;

// One message: the readers share its error and its budget of items.
class Decoder {
 public:
  bool Request(WireReader reader, WireRequest& out);

 private:
  bool Input(WireReader reader, WireInput& out);
  bool Output(WireReader reader, WireRequestedOutput& out);
  bool Contents(WireReader reader, WireContents& out);
  bool ShapeField(WireReader& reader, const WireTag& tag, std::vector<std::int64_t>& out);
  bool Dimension(WireReader& reader, std::vector<std::int64_t>& out);
  bool MapField(WireReader& reader, WireParameters& out);
  bool Parameter(WireReader reader, WireParameter& out);
  bool Spend(WireReader& reader);

  std::uint64_t items_ = 0;
};

bool Decoder::Spend(WireReader& reader) {
  return ++items_ <= kMaxWireItems ||
         reader.Fail("more than 65536 tensors, parameters and dimensions");
}

bool Decoder::Request(WireReader reader, WireRequest& out) {
  WireReader inside = reader;
  while (!reader.AtEnd()) {
    WireTag tag;
    if (!reader.ReadTag(tag)) return false;
    bool ok = true;
    if (tag.Is(1, kBytes)) {
      ok = reader.ReadString(out.model_name);
    } else if (tag.Is(2, kBytes)) {
      ok = reader.ReadString(out.model_version);
    } else if (tag.Is(3, kBytes)) {
      ok = reader.ReadString(out.id);
    } else if (tag.Is(4, kBytes)) {
      ok = MapField(reader, out.parameters);
    } else if (tag.Is(5, kBytes)) {
      ok =
          Spend(reader) && reader.ReadDelimited(inside) && Input(inside, out.inputs.emplace_back());
    } else if (tag.Is(6, kBytes)) {
      ok = Spend(reader) && reader.ReadDelimited(inside) &&
           Output(inside, out.outputs.emplace_back());
    } else if (tag.Is(7, kBytes)) {
      ok = Spend(reader) && reader.ReadSlices(out.raw_inputs.emplace_back());
    } else {
      ok = reader.SkipField(tag);
    }
    if (!ok) return false;
  }
  return true;
}

bool Decoder::Input(WireReader reader, WireInput& out) {
  WireReader inside = reader;
  while (!reader.AtEnd()) {
    WireTag tag;
    if (!reader.ReadTag(tag)) return false;
    bool ok = true;
    if (tag.Is(1, kBytes)) {
      ok = reader.ReadString(out.name);
    } else if (tag.Is(2, kBytes)) {
      ok = reader.ReadString(out.datatype);
    } else if (tag.field == 3) {
      ok = ShapeField(reader, tag, out.shape);
    } else if (tag.Is(4, kBytes)) {
      ok = MapField(reader, out.parameters);
    } else if (tag.Is(5, kBytes)) {
      ok = reader.ReadDelimited(inside) && Contents(inside, out.contents);
    } else {
      ok = reader.SkipField(tag);
    }
    if (!ok) return false;
  }
  return true;
}

bool Decoder::Output(WireReader reader, WireRequestedOutput& out) {
  while (!reader.AtEnd()) {
    WireTag tag;
    if (!reader.ReadTag(tag)) return false;
    bool ok = true;
    if (tag.Is(1, kBytes)) {
      ok = reader.ReadString(out.name);
    } else if (tag.Is(2, kBytes)) {
      ok = MapField(reader, out.parameters);
    } else {
      ok = reader.SkipField(tag);
    }
    if (!ok) return false;
  }
  return true;
}

bool Decoder::Contents(WireReader reader, WireContents& out) {
  if (reader.AtEnd()) return true;
  if (!Spend(reader)) return false;
  const auto count = [&out](ContentKind kind, std::uint64_t) {
    ++out.counts[static_cast<std::size_t>(kind)];
  };
  if (!VisitContents(reader, count)) return false;
  reader.TakeSlices(out.messages.emplace_back());
  return true;
}

bool Decoder::Dimension(WireReader& reader, std::vector<std::int64_t>& out) {
  std::uint64_t value = 0;
  if (!Spend(reader) || !reader.ReadVarint(value)) return false;
  out.push_back(static_cast<std::int64_t>(value));
  return true;
}

bool Decoder::ShapeField(WireReader& reader, const WireTag& tag, std::vector<std::int64_t>& out) {
  if (tag.type == WireType::kVarint) return Dimension(reader, out);
  if (tag.type != kBytes) return reader.SkipField(tag);
  WireReader packed = reader;
  if (!reader.ReadDelimited(packed)) return false;
  while (!packed.AtEnd()) {
    if (!Dimension(packed, out)) return false;
  }
  return true;
}

bool Decoder::MapField(WireReader& reader, WireParameters& out) {
  WireReader entry = reader;
  if (!Spend(reader) || !reader.ReadDelimited(entry)) return false;
  std::string key;
  WireParameter value;
  WireReader inside = entry;
  while (!entry.AtEnd()) {
    WireTag tag;
    if (!entry.ReadTag(tag)) return false;
    bool ok = true;
    if (tag.Is(1, kBytes)) {
      ok = entry.ReadString(key);
    } else if (tag.Is(2, kBytes)) {
      ok = entry.ReadDelimited(inside) && Parameter(inside, value);
    } else {
      ok = entry.SkipField(tag);
    }
    if (!ok) return false;
  }
  out.insert_or_assign(std::move(key), std::move(value));
  return true;
}

bool Decoder::Parameter(WireReader reader, WireParameter& out) {
  while (!reader.AtEnd()) {
    WireTag tag;
    if (!reader.ReadTag(tag)) return false;
    std::uint64_t bits = 0;
    if (tag.Is(1, WireType::kVarint)) {
      if (!reader.ReadVarint(bits)) return false;
      out = bits != 0;
    } else if (tag.Is(2, WireType::kVarint)) {
      if (!reader.ReadVarint(bits)) return false;
      out = static_cast<std::int64_t>(bits);
    } else if (tag.Is(3, kBytes)) {
      if (!reader.ReadString(out.emplace<std::string>())) return false;
    } else if (tag.Is(4, WireType::kFixed64)) {
      if (!reader.ReadFixed64(bits)) return false;
      out = std::bit_cast<double>(bits);
    } else if (tag.Is(5, WireType::kVarint)) {
      if (!reader.ReadVarint(bits)) return false;
      out = bits;
    } else if (!reader.SkipField(tag)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool WireContents::empty() const {
  for (const std::uint64_t count : counts) {
    if (count != 0) return false;
  }
  return true;
}

absl::StatusOr<WireRequest> DecodeInferRequest(absl::Span<const ByteSpan> message) {
  WireError error;
  WireRequest request;
  if (Decoder().Request(WireReader(message, error), request)) return request;
  return absl::InvalidArgumentError(
      Concat("malformed ModelInferRequest: ", error.what, " (at byte ", error.position, ")"));
}

}  // namespace relight::rpc
