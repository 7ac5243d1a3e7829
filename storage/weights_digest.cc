#include "storage/weights_digest.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/status_macros.h"
#include "storage/strided.h"
#include "xxhash.h"

namespace relight::storage {
namespace {

ElementsHash HashElements(const WeightTensor& tensor, const std::byte* first) {
  Hasher hasher;
  ForEachStretch(first, tensor.shape, tensor.stride, ItemSize(tensor.dtype),
                 [&hasher](absl::Span<const std::byte> elements) {
                   hasher.Add(elements.data(), elements.size());
                 });
  return hasher.Finish();
}

}  // namespace

Hasher::Hasher() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }
Hasher::~Hasher() { XXH3_freeState(state_); }

void Hasher::Add(const void* bytes, std::size_t size) { XXH3_128bits_update(state_, bytes, size); }

void Hasher::AddNumber(std::uint64_t value) { Add(&value, sizeof value); }

void Hasher::AddText(std::string_view text) {
  AddNumber(text.size());
  Add(text.data(), text.size());
}

ElementsHash Hasher::Finish() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_));
  ElementsHash hash;
  std::memcpy(hash.data(), canonical.digest, hash.size());
  return hash;
}

WeightsDigest CombineHashes(const WeightPlan& plan, absl::Span<const ElementsHash> hashes) {
  std::vector<std::size_t> by_key(plan.tensors.size());
  std::iota(by_key.begin(), by_key.end(), std::size_t{0});
  std::sort(by_key.begin(), by_key.end(), [&plan](std::size_t a, std::size_t b) {
    return plan.tensors[a].key < plan.tensors[b].key;
  });
  Hasher hasher;
  for (const std::size_t i : by_key) {
    const WeightTensor& tensor = plan.tensors[i];
    hasher.AddText(tensor.key);
    hasher.AddText(Name(tensor.dtype));
    hasher.AddNumber(tensor.shape.size());
    for (const std::int64_t size : tensor.shape) {
      hasher.AddNumber(static_cast<std::uint64_t>(size));
    }
    hasher.Add(hashes[i].data(), hashes[i].size());
  }
  return WeightsDigest{hasher.Finish()};
}

absl::StatusOr<WeightsDigest> DigestBlock(const WeightPlan& plan, absl::Span<const std::byte> block,
                                          const std::function<absl::Status()>& between_tensors) {
  std::vector<ElementsHash> hashes;
  hashes.reserve(plan.tensors.size());
  for (const WeightTensor& tensor : plan.tensors) {
    if (between_tensors) RELIGHT_RETURN_IF_ERROR(between_tensors());
    hashes.push_back(HashElements(tensor, block.data() + tensor.offset_bytes));
  }
  return CombineHashes(plan, hashes);
}

std::string WeightsDigest::ToHex() const {
  return absl::BytesToHexString(
      std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace relight::storage
