#include "tests/server/rpc/decode_fuzz.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/rpc/infer_translation.h"
#include "tests/server/rpc/wire_comparison.h"

namespace relight::rpc {
namespace {

constexpr std::uint64_t kMaxUnpackedBytes = 1 << 20;

void RequireAgreement(const std::string& disagreement) {
  if (disagreement.empty()) return;
  std::fprintf(stderr, "%s\n", disagreement.c_str());
  std::abort();
}

// Places that follow from the bytes: the same input is always cut the same.
std::vector<std::size_t> ScatteredCuts(const std::string& bytes) {
  std::uint64_t state = bytes.size();
  for (const char c : bytes) state = state * 0x100000001b3 + static_cast<std::uint8_t>(c);
  std::vector<std::size_t> cuts;
  for (int i = 0; i < 3; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    cuts.push_back(static_cast<std::size_t>(state >> 33) % (bytes.size() + 1));
  }
  return cuts;
}

// A cut behind every byte of a short message, and 32 cuts in a longer one.
std::vector<std::size_t> ManyCuts(std::size_t size) {
  std::vector<std::size_t> cuts;
  for (std::size_t at = 0; at < size; at += 1 + size / 32) cuts.push_back(at);
  return cuts;
}

}  // namespace

void DecodeFuzz(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const Comparison comparison = CompareWithProtobuf(bytes, ScatteredCuts(bytes));
  RequireAgreement(comparison.disagreement);
  RequireAgreement(CompareSlicings(bytes, {}, ManyCuts(size)));
  RequireAgreement(CompareSlicings(bytes, {}, ScatteredCuts(bytes)));
  if (!comparison.request) return;
  TranslatedRequest translated;
  const absl::Status status = TranslateRequest(*comparison.request, kMaxUnpackedBytes, translated);
  if (status.ok() || absl::IsInvalidArgument(status) || absl::IsUnimplemented(status)) return;
  RequireAgreement("the request is refused by another code: " + status.ToString());
}

}  // namespace relight::rpc
