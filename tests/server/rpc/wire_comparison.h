// The decoder against protobuf's own parser.
#ifndef RELIGHT_TESTS_SERVER_RPC_WIRE_COMPARISON_H_
#define RELIGHT_TESTS_SERVER_RPC_WIRE_COMPARISON_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "inference/grpc_service.pb.h"
#include "server/rpc/wire_decoder.h"

namespace relight::rpc {

// Bytes cut into slices of their own memory, so that reading beyond one is seen by a sanitizer.
struct SlicedBytes {
  std::vector<std::vector<std::byte>> owned;
  std::vector<ByteSpan> spans;

  SlicedBytes(const std::string& bytes, std::vector<std::size_t> cuts);
};

// What the decoder found, as protobuf's message.
inference::ModelInferRequest ToProto(const WireRequest& request);

struct Comparison {
  std::string disagreement;  // Empty: none.
  bool accepted = false;
  // What was decoded, if it was; it borrows from `slices`.
  std::optional<WireRequest> request;
  std::shared_ptr<const SlicedBytes> slices;
};

Comparison CompareWithProtobuf(const std::string& bytes, const std::vector<std::size_t>& cuts);

// Where the decoder finds something else in the same bytes when they are cut otherwise; empty: it
// does not.
std::string CompareSlicings(const std::string& bytes, const std::vector<std::size_t>& cuts,
                            const std::vector<std::size_t>& other_cuts);

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_WIRE_COMPARISON_H_
