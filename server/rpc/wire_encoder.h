// ModelInferResponse and ModelStreamInferResponse as bytes: small parts are written into strings,
// large tensors stay where they are and are handed on by reference.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_WIRE_ENCODER_H_
#define RELIGHT_SERVER_RPC_WIRE_ENCODER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"

namespace relight::rpc {

// Below this, copying a tensor into the header is cheaper than a slice of its own.
inline constexpr std::uint64_t kCopyBelowBytes = 4096;

struct WireOutput {
  std::string name;
  std::string datatype;
  std::vector<std::int64_t> shape;
  std::string contents;  // An encoded InferTensorContents; used where the reply is typed.
  std::shared_ptr<const std::byte> data;  // Used where the reply is raw; may be null if empty.
  std::uint64_t size_bytes = 0;
};

struct WireResponse {
  using Value = std::variant<bool, std::int64_t, std::string_view>;

  std::string_view model_name;
  std::string model_version;
  std::string_view id;
  absl::InlinedVector<std::pair<std::string_view, Value>, 3> parameters;
  std::vector<WireOutput> outputs;
  bool raw = true;  // Tensors in raw_output_contents, one entry per output; else in their contents.
};

// `header`, followed by `size_bytes` at `data`.
struct WireChunk {
  std::string header;
  std::shared_ptr<const std::byte> data;
  std::uint64_t size_bytes = 0;
};
using WireMessage = absl::InlinedVector<WireChunk, 2>;

WireMessage EncodeInferResponse(const WireResponse& response);
// Either part may be absent. An error message comes with a response that carries only the id.
WireMessage EncodeStreamResponse(std::string_view error_message, const WireResponse& response);

// --- the pieces, for whoever encodes contents ---

void AppendVarint(std::string& out, std::uint64_t value);
void AppendTag(std::string& out, std::uint32_t field, std::uint32_t wire_type);
void AppendDelimited(std::string& out, std::uint32_t field, std::string_view bytes);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_WIRE_ENCODER_H_
