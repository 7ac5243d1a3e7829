// ModelInferRequest from its bytes. Tensor bytes stay where they are, as slices; everything else is
// small and copied. Accepts what protobuf's parser accepts, but for groups and for messages with
// more than kMaxWireItems tensors, parameters and dimensions, so that a small message cannot ask
// for much memory.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_WIRE_DECODER_H_
#define RELIGHT_SERVER_RPC_WIRE_DECODER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/rpc/wire_contents.h"
#include "server/rpc/wire_reader.h"

namespace relight::rpc {

inline constexpr std::uint64_t kMaxWireItems = 65536;

// InferParameter: in the order of its fields; monostate where none is set.
using WireParameter =
    std::variant<std::monostate, bool, std::int64_t, std::string, double, std::uint64_t>;
using WireParameters = std::map<std::string, WireParameter, std::less<>>;

// The typed form of a tensor, checked but not unpacked. Borrows the message's bytes.
struct WireContents {
  std::vector<ByteSlices> messages;  // InferTensorContents; to be read one after the other.
  std::array<std::uint64_t, kContentKinds> counts{};  // Elements by ContentKind.

  std::uint64_t count(ContentKind kind) const { return counts[static_cast<std::size_t>(kind)]; }
  bool empty() const;  // No element of any kind.
};

struct WireInput {
  std::string name;
  std::string datatype;
  std::vector<std::int64_t> shape;
  WireParameters parameters;
  WireContents contents;
};

struct WireRequestedOutput {
  std::string name;
  WireParameters parameters;
};

struct WireRequest {
  std::string model_name;
  std::string model_version;
  std::string id;
  WireParameters parameters;
  std::vector<WireInput> inputs;
  std::vector<WireRequestedOutput> outputs;
  std::vector<ByteSlices> raw_inputs;  // Borrowed from the message.
};

// INVALID_ARGUMENT with the position and the reason.
absl::StatusOr<WireRequest> DecodeInferRequest(absl::Span<const ByteSpan> message);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_WIRE_DECODER_H_
