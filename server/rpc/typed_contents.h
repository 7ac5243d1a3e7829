// Tensors between their typed form on the wire (InferTensorContents) and row-major bytes.
//
// Pure and thread-safe.
#ifndef RELIGHT_SERVER_RPC_TYPED_CONTENTS_H_
#define RELIGHT_SERVER_RPC_TYPED_CONTENTS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/rpc/wire_contents.h"
#include "server/rpc/wire_decoder.h"
#include "storage/dtype.h"

namespace relight::rpc {

// The field that carries `dtype`; none for FP16 and BF16, which travel only as raw bytes, and for
// types outside of the protocol.
std::optional<ContentKind> ContentKindOf(DType dtype);

// `count` elements of `dtype`, little-endian. INVALID_ARGUMENT where the elements are in another
// field, are fewer or more than `count`, or do not fit `dtype`.
// The caller bounds count * ItemSize(dtype) before.
absl::StatusOr<std::vector<std::byte>> UnpackContents(const WireContents& contents, DType dtype,
                                                      std::uint64_t count);

// The encoded InferTensorContents of `size_bytes` bytes at `data`. REQUIRES: ContentKindOf(dtype).
std::string PackContents(DType dtype, const std::byte* data, std::uint64_t size_bytes);

// BYTES tensors: the typed form, and the raw one (each element after its 32-bit length).
std::string PackBytesContents(absl::Span<const std::string> elements);
std::string PackRawBytes(absl::Span<const std::string> elements);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_TYPED_CONTENTS_H_
