// One run of the decoder on arbitrary bytes, for a fuzzer and for the tests.
#ifndef RELIGHT_TESTS_SERVER_RPC_DECODE_FUZZ_H_
#define RELIGHT_TESTS_SERVER_RPC_DECODE_FUZZ_H_

#include <cstddef>
#include <cstdint>

namespace relight::rpc {

// Decodes and translates `data`, cut into slices in several ways, and aborts where the decoder and
// protobuf's own parser disagree, or the decoder with itself.
void DecodeFuzz(const std::uint8_t* data, std::size_t size);

}  // namespace relight::rpc

#endif  // RELIGHT_TESTS_SERVER_RPC_DECODE_FUZZ_H_
