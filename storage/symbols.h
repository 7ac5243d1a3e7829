// Which of the names that a pickle mentions mean something to us. A name is looked up in closed
// tables; nothing is ever imported or called.
#ifndef RELIGHT_STORAGE_SYMBOLS_H_
#define RELIGHT_STORAGE_SYMBOLS_H_

#include <cstdint>
#include <string_view>

#include "storage/dtype.h"

namespace relight::storage {

enum class Meaning : std::uint8_t {
  kUnknown,
  kInert,  // Common and harmless: read as an opaque object, even in strict mode.
  kOrderedDict,
  kDefaultDict,
  kCounter,
  kDict,
  kList,
  kTuple,
  kSet,
  kFrozenSet,
  kEncode,  // _codecs.encode: bytes in protocol 2.
  kBytes,
  kByteArray,
  kComplex,
  kSize,
  kDevice,
  kGetLayout,
  kTorchVersion,
  kDTypeValue,    // torch.float32 as a value.
  kQSchemeValue,  // torch.per_tensor_affine as a value.
  kStorageClass,
  kFirstArgument,  // Wrappers of C++ pickles that yield their first argument.
  kParameter,
  kBuffer,
  kOldTensorClass,  // torch.FloatTensor: only in files of torch 0.1.
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kRebuildParameterWithState,
  kRebuildQTensor,
  kRebuildSparseTensor,
  kRebuildSparseCsrTensor,
  kRebuildMetaTensor,
  kRebuildNestedTensor,
  kRebuildWrapperSubclass,
  kRebuildDeviceTensorFromCpu,
  kRebuildDeviceTensorFromNumpy,
  kRebuildFromType,
  kRebuildFromTypeV2,
  kNumpyScalar,
  kNumpyReconstruct,
  kNumpyFromBuffer,
  kNumpyDType,
  kNumpyArrayClass,
};

struct Symbol {
  Meaning meaning = Meaning::kUnknown;
  // Of kStorageClass and, where we know it, kDTypeValue.
  bool has_dtype = false;
  DType dtype = DType::kUInt8;
  bool untyped = false;  // Of kStorageClass.
};

// The modern spelling of what protocol 2 spells as Python 2 did.
std::string_view ModernModule(std::string_view module);
std::string_view ModernName(std::string_view module, std::string_view name);

// `module` and `name` in their modern spelling.
Symbol LookUpSymbol(std::string_view module, std::string_view name);

// Whether the name has no business in a checkpoint: it runs code or touches the system. Refusing it
// is a signal to the operator, not what keeps us safe (nothing is called anyway).
bool IsForbiddenSymbol(std::string_view module, std::string_view name);

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_SYMBOLS_H_
