#include "tests/server/rpc/decode_fuzz.h"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "server/rpc/infer_translation.h"
#include "tests/server/rpc/wire_comparison.h"

namespace relight::rpc {

void DecodeFuzz(const std::uint8_t* data, std::size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  // Reproducible cuts: the first bytes say how long the slices are.
  std::vector<std::size_t> cuts;
  for (std::size_t i = 0; i < size && i < 3; ++i) cuts.push_back(data[i] % (size + 1));
  const Comparison comparison = CompareWithProtobuf(bytes, cuts);
  if (!comparison.disagreement.empty()) {
    std::fprintf(stderr, "%s\n", comparison.disagreement.c_str());
    std::abort();
  }
  if (!comparison.request) return;
  TranslatedRequest translated;
  const absl::Status ignored = TranslateRequest(*comparison.request, 1 << 20, translated);
  static_cast<void>(ignored);
}

}  // namespace relight::rpc
