#include "server/rpc/wire_encoder.h"

namespace relight::rpc {
namespace {

constexpr std::uint32_t kVarint = 0;
constexpr std::uint32_t kLengthDelimited = 2;
constexpr std::size_t kUsualHeaderBytes = 384;

void AppendString(std::string& out, std::uint32_t field, std::string_view text) {
  if (!text.empty()) AppendDelimited(out, field, text);
}

std::size_t VarintSize(std::uint64_t value) {
  std::size_t size = 1;
  while (value >>= 7) ++size;
  return size;
}

// Of a field whose number is below 16.
std::size_t DelimitedSize(std::size_t bytes) { return 1 + VarintSize(bytes) + bytes; }

std::size_t StringSize(std::string_view text) {
  return text.empty() ? 0 : DelimitedSize(text.size());
}

void AppendLength(std::string& out, std::uint32_t field, std::size_t size) {
  AppendTag(out, field, kLengthDelimited);
  AppendVarint(out, size);
}

std::size_t ValueSize(const WireResponse::Value& value) {
  if (std::holds_alternative<bool>(value)) return 2;
  if (const std::int64_t* number = std::get_if<std::int64_t>(&value)) {
    return 1 + VarintSize(static_cast<std::uint64_t>(*number));
  }
  return DelimitedSize(std::get<std::string_view>(value).size());
}

void AppendParameter(std::string& out, std::string_view key, const WireResponse::Value& value) {
  const std::size_t value_size = ValueSize(value);
  AppendLength(out, 4, DelimitedSize(key.size()) + DelimitedSize(value_size));
  AppendDelimited(out, 1, key);
  AppendLength(out, 2, value_size);
  if (const bool* flag = std::get_if<bool>(&value)) {
    AppendTag(out, 1, kVarint);
    AppendVarint(out, *flag ? 1 : 0);
  } else if (const std::int64_t* number = std::get_if<std::int64_t>(&value)) {
    AppendTag(out, 2, kVarint);
    AppendVarint(out, static_cast<std::uint64_t>(*number));
  } else {
    AppendDelimited(out, 3, std::get<std::string_view>(value));
  }
}

void AppendOutput(std::string& out, const WireOutput& output, bool raw) {
  std::size_t shape_size = 0;
  for (const std::int64_t dim : output.shape) {
    shape_size += VarintSize(static_cast<std::uint64_t>(dim));
  }
  AppendLength(out, 5,
               StringSize(output.name) + StringSize(output.datatype) +
                   (output.shape.empty() ? 0 : DelimitedSize(shape_size)) +
                   (raw ? 0 : DelimitedSize(output.contents.size())));
  AppendString(out, 1, output.name);
  AppendString(out, 2, output.datatype);
  if (!output.shape.empty()) AppendLength(out, 3, shape_size);
  for (const std::int64_t dim : output.shape) AppendVarint(out, static_cast<std::uint64_t>(dim));
  if (!raw) AppendDelimited(out, 5, output.contents);
}

void AppendRaw(WireMessage& message, const WireOutput& output) {
  std::string& header = message.back().header;
  AppendTag(header, 6, kLengthDelimited);
  AppendVarint(header, output.size_bytes);
  if (output.size_bytes < kCopyBelowBytes) {
    header.append(reinterpret_cast<const char*>(output.data.get()), output.size_bytes);
    return;
  }
  message.back().data = output.data;
  message.back().size_bytes = output.size_bytes;
  message.emplace_back();
}

}  // namespace

void AppendVarint(std::string& out, std::uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void AppendTag(std::string& out, std::uint32_t field, std::uint32_t wire_type) {
  AppendVarint(out, field << 3 | wire_type);
}

void AppendDelimited(std::string& out, std::uint32_t field, std::string_view bytes) {
  AppendTag(out, field, kLengthDelimited);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

WireMessage EncodeInferResponse(const WireResponse& response) {
  WireMessage message(1);
  std::string& header = message.front().header;
  header.reserve(kUsualHeaderBytes);
  AppendString(header, 1, response.model_name);
  AppendString(header, 2, response.model_version);
  AppendString(header, 3, response.id);
  for (const auto& [key, value] : response.parameters) AppendParameter(header, key, value);
  for (const WireOutput& output : response.outputs) AppendOutput(header, output, response.raw);
  if (!response.raw) return message;
  for (const WireOutput& output : response.outputs) AppendRaw(message, output);
  if (message.back().header.empty() && message.size() > 1) message.pop_back();
  return message;
}

WireMessage EncodeStreamResponse(std::string_view error_message, const WireResponse& response) {
  WireMessage message = EncodeInferResponse(response);
  std::uint64_t size = 0;
  for (const WireChunk& chunk : message) size += chunk.header.size() + chunk.size_bytes;
  std::string prefix;
  AppendString(prefix, 1, error_message);
  AppendTag(prefix, 2, kLengthDelimited);
  AppendVarint(prefix, size);
  message.front().header.insert(0, prefix);
  return message;
}

}  // namespace relight::rpc
