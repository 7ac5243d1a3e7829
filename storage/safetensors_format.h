// What reading and writing safetensors share: limits, and the names of element types.
#ifndef RELIGHT_STORAGE_SAFETENSORS_FORMAT_H_
#define RELIGHT_STORAGE_SAFETENSORS_FORMAT_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "storage/dtype.h"

namespace relight::storage {

inline constexpr std::uint64_t kMaxSafetensorsHeaderBytes = 100'000'000;
// The member of the header that is no tensor.
inline constexpr char kSafetensorsMetadata[] = "__metadata__";

// "F32", "BF16", ...; nullopt for what the format has no name for.
std::optional<std::string_view> SafetensorsName(DType dtype);
std::optional<DType> DTypeFromSafetensorsName(std::string_view name);

// Whether it is a type of the format that is narrower than a byte, which no DType stands for.
bool IsSubByteSafetensorsName(std::string_view name);

// Where the format's own writers put tensors of a type: those of a larger rank first, so that each
// is aligned. REQUIRES: the type has a name.
int SafetensorsRank(DType dtype);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SAFETENSORS_FORMAT_H_
