// Fuzzes the request decoder against protobuf's own parser, and the protocol's rules behind it.
#include "tests/fuzz/fuzz_target.h"
#include "tests/server/rpc/decode_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  relight::rpc::DecodeFuzz(data, size);
  return 0;
}
