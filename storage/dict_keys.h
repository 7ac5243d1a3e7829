// Finds keys that are set twice on the same dict, as Python compares keys.
#ifndef RELIGHT_STORAGE_DICT_KEYS_H_
#define RELIGHT_STORAGE_DICT_KEYS_H_

#include <cstdint>
#include <string>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/parse_context.h"
#include "storage/tree.h"

namespace relight::storage {

class DictKeys {
 public:
  explicit DictKeys(ParseContext& context);

  // PICKLE_DUPLICATE_KEY where `dict` has an equal key, PICKLE_BAD_VALUE where `key` has no hash
  // (a list, a dict).
  absl::Status Insert(NodeId dict, NodeId key);
  // Whether `key` may be in a dict or set at all.
  absl::Status CheckHashable(NodeId key);

 private:
  // Keys are compared by a seeded 128-bit hash of their canonical bytes: a pickle cannot aim for a
  // collision, and what one would do is refuse the pickle's own file.
  struct Fingerprint {
    std::uint64_t low = 0;
    std::uint64_t high = 0;
    friend bool operator==(const Fingerprint&, const Fingerprint&) = default;
  };
  struct FingerprintHash {
    std::size_t operator()(const Fingerprint& f) const { return static_cast<std::size_t>(f.low); }
  };

  absl::Status Canonicalise(NodeId key);
  absl::Status AppendLeaf(NodeId key);
  void AppendTagged(char tag, std::string_view bytes);
  void AppendNumber(NodeId key);

  ParseContext& context_;
  std::uint64_t seed_;
  std::string canonical_;
  std::unordered_set<Fingerprint, FingerprintHash> seen_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_DICT_KEYS_H_
