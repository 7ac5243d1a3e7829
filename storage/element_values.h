// What serving does to the bytes of elements: bools become 0 or 1, and what PyTorch has only noted
// (conjugation, negation) is done.
#ifndef RELIGHT_STORAGE_ELEMENT_VALUES_H_
#define RELIGHT_STORAGE_ELEMENT_VALUES_H_

#include <cstddef>

#include "storage/dtype.h"

namespace relight::storage {

// Whether PyTorch may have noted a negation of such elements: of floating point and complex types
// that have a sign.
bool CanNegate(DType dtype);

// In place, `count` elements each.
void NormaliseBools(std::byte* bytes, std::size_t count);
void Conjugate(DType dtype, std::byte* bytes, std::size_t count);
void Negate(DType dtype, std::byte* bytes, std::size_t count);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_ELEMENT_VALUES_H_
