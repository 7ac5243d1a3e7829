// Between the wire and the core: what a decoded ModelInferRequest asks of the core, and what the
// core's result looks like on the wire. All of the protocol's rules about tensors and parameters
// that do not need the model are here.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_INFER_TRANSLATION_H_
#define RELIGHT_SERVER_RPC_INFER_TRANSLATION_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/rpc/wire_decoder.h"
#include "server/rpc/wire_encoder.h"
#include "server/serving/infer.h"

namespace relight::rpc {

// What the answer needs to know of its request.
struct ReplyPlan {
  std::string model;
  std::string id;
  bool raw = true;            // The reply mirrors the request, unless a parameter says otherwise.
  bool final_marker = false;  // The client asked for `triton_final_response` on a stream.
  // How many classes to send, per requested output; 0: the tensor. Empty: tensors.
  std::vector<std::uint64_t> classes;
};

struct TranslatedRequest {
  serving::InferRequest request;  // Without deadline, cancelled and keep_alive.
  ReplyPlan plan;
  // Inputs that came typed, unpacked; `request` borrows them, and the message.
  std::vector<std::vector<std::byte>> unpacked;
};

// INVALID_ARGUMENT for what the protocol does not allow, UNIMPLEMENTED for shared memory; the
// model, id and final_marker of `out.plan` are right even then. Typed inputs may not unpack to more
// than `max_bytes` together.
absl::Status TranslateRequest(WireRequest wire, std::uint64_t max_bytes, TranslatedRequest& out);

// An integer, or absent where `text` is empty; INVALID_ARGUMENT otherwise.
absl::StatusOr<std::optional<std::int64_t>> ParseModelVersion(std::string_view text);

// What goes with an error on a stream: whose it is. Borrows from `plan`.
WireResponse MakeErrorResponse(const ReplyPlan& plan);

// `batched`: whether the model's first dimension counts rows. The response borrows from `plan` and
// `result`. INVALID_ARGUMENT where an output cannot be classified.
absl::StatusOr<WireResponse> MakeResponse(const ReplyPlan& plan, const serving::InferResult& result,
                                          bool batched, bool mark_final);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_INFER_TRANSLATION_H_
