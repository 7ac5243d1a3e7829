#include "storage/symbols.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>

namespace relight::storage {
namespace {

struct NamedMeaning {
  std::string_view module;
  std::string_view name;
  Meaning meaning;
};

constexpr NamedMeaning kMeanings[] = {
    {"collections", "OrderedDict", Meaning::kOrderedDict},
    {"collections", "defaultdict", Meaning::kDefaultDict},
    {"collections", "Counter", Meaning::kCounter},
    {"builtins", "dict", Meaning::kDict},
    {"builtins", "list", Meaning::kList},
    {"builtins", "tuple", Meaning::kTuple},
    {"builtins", "set", Meaning::kSet},
    {"builtins", "frozenset", Meaning::kFrozenSet},
    {"builtins", "bytes", Meaning::kBytes},
    {"builtins", "bytearray", Meaning::kByteArray},
    {"builtins", "complex", Meaning::kComplex},
    {"builtins", "slice", Meaning::kInert},
    {"builtins", "range", Meaning::kInert},
    {"builtins", "Ellipsis", Meaning::kInert},
    {"builtins", "int", Meaning::kInert},
    {"builtins", "float", Meaning::kInert},
    {"builtins", "str", Meaning::kInert},
    {"builtins", "bool", Meaning::kInert},
    {"builtins", "object", Meaning::kInert},
    {"builtins", "type", Meaning::kInert},
    {"_codecs", "encode", Meaning::kEncode},
    {"torch", "Size", Meaning::kSize},
    {"torch", "device", Meaning::kDevice},
    {"torch", "Tensor", Meaning::kInert},
    {"torch._tensor", "Tensor", Meaning::kInert},
    {"torch.serialization", "_get_layout", Meaning::kGetLayout},
    {"torch.torch_version", "TorchVersion", Meaning::kTorchVersion},
    {"torch.jit._pickle", "restore_type_tag", Meaning::kFirstArgument},
    {"torch.jit._pickle", "build_intlist", Meaning::kFirstArgument},
    {"torch.jit._pickle", "build_doublelist", Meaning::kFirstArgument},
    {"torch.jit._pickle", "build_boollist", Meaning::kFirstArgument},
    {"torch.jit._pickle", "build_tensorlist", Meaning::kFirstArgument},
    {"torch.nn.parameter", "Parameter", Meaning::kParameter},
    {"torch.nn.parameter", "Buffer", Meaning::kBuffer},
    {"torch._utils", "_rebuild_tensor", Meaning::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v2", Meaning::kRebuildTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", Meaning::kRebuildTensorV3},
    {"torch._utils", "_rebuild_parameter", Meaning::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", Meaning::kRebuildParameterWithState},
    {"torch._utils", "_rebuild_qtensor", Meaning::kRebuildQTensor},
    {"torch._utils", "_rebuild_sparse_tensor", Meaning::kRebuildSparseTensor},
    {"torch._utils", "_rebuild_sparse_csr_tensor", Meaning::kRebuildSparseCsrTensor},
    {"torch._utils", "_rebuild_meta_tensor_no_storage", Meaning::kRebuildMetaTensor},
    {"torch._utils", "_rebuild_nested_tensor", Meaning::kRebuildNestedTensor},
    {"torch._utils", "_rebuild_wrapper_subclass", Meaning::kRebuildWrapperSubclass},
    {"torch._utils", "_rebuild_device_tensor_from_cpu_tensor",
     Meaning::kRebuildDeviceTensorFromCpu},
    {"torch._utils", "_rebuild_device_tensor_from_numpy", Meaning::kRebuildDeviceTensorFromNumpy},
    {"torch._utils", "_rebuild_xla_tensor", Meaning::kRebuildDeviceTensorFromNumpy},
    {"torch._tensor", "_rebuild_from_type", Meaning::kRebuildFromType},
    {"torch._tensor", "_rebuild_from_type_v2", Meaning::kRebuildFromTypeV2},
    {"numpy.core.multiarray", "scalar", Meaning::kNumpyScalar},
    {"numpy._core.multiarray", "scalar", Meaning::kNumpyScalar},
    {"numpy.core.multiarray", "_reconstruct", Meaning::kNumpyReconstruct},
    {"numpy._core.multiarray", "_reconstruct", Meaning::kNumpyReconstruct},
    {"numpy.core.numeric", "_frombuffer", Meaning::kNumpyFromBuffer},
    {"numpy._core.numeric", "_frombuffer", Meaning::kNumpyFromBuffer},
    {"numpy", "dtype", Meaning::kNumpyDType},
    {"numpy", "ndarray", Meaning::kNumpyArrayClass},
};

struct StorageClass {
  std::string_view name;
  DType dtype;
};

constexpr StorageClass kStorageClasses[] = {
    {"DoubleStorage", DType::kFloat64},
    {"FloatStorage", DType::kFloat32},
    {"HalfStorage", DType::kFloat16},
    {"BFloat16Storage", DType::kBFloat16},
    {"LongStorage", DType::kInt64},
    {"IntStorage", DType::kInt32},
    {"ShortStorage", DType::kInt16},
    {"CharStorage", DType::kInt8},
    {"ByteStorage", DType::kUInt8},
    {"BoolStorage", DType::kBool},
    {"ComplexFloatStorage", DType::kComplex64},
    {"ComplexDoubleStorage", DType::kComplex128},
    {"QInt8Storage", DType::kQInt8},
    {"QUInt8Storage", DType::kQUInt8},
    {"QInt32Storage", DType::kQInt32},
    {"QUInt4x2Storage", DType::kQUInt4x2},
    {"QUInt2x4Storage", DType::kQUInt2x4},
};

struct DTypeAlias {
  std::string_view name;
  DType dtype;
};

constexpr DTypeAlias kDTypeAliases[] = {
    {"half", DType::kFloat16},     {"float", DType::kFloat32},      {"double", DType::kFloat64},
    {"short", DType::kInt16},      {"int", DType::kInt32},          {"long", DType::kInt64},
    {"cfloat", DType::kComplex64}, {"cdouble", DType::kComplex128}, {"chalf", DType::kComplex32},
};

// Types that exist in newer torch as names only.
constexpr std::string_view kNamedOnlyDTypes[] = {
    "int1",  "int2",  "int3",  "int4",  "int5",  "int6",  "int7",
    "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7",
};

constexpr std::string_view kQSchemes[] = {
    "per_tensor_affine",    "per_channel_affine",    "per_channel_affine_float_qparams",
    "per_tensor_symmetric", "per_channel_symmetric",
};

constexpr std::string_view kOldTensorClasses[] = {
    "DoubleTensor", "FloatTensor", "HalfTensor", "LongTensor",
    "IntTensor",    "ShortTensor", "CharTensor", "ByteTensor",
};

// With everything below them.
constexpr std::string_view kForbiddenModules[] = {
    "os",
    "posix",
    "nt",
    "sys",
    "subprocess",
    "pty",
    "shutil",
    "socket",
    "ctypes",
    "importlib",
    "runpy",
    "pkgutil",
    "pip",
    "multiprocessing",
    "webbrowser",
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "dill",
    "cloudpickle",
    "zipimport",
    "imp",
    "ensurepip",
    "pdb",
    "bdb",
    "torch.hub",
    "torch.utils.cpp_extension",
    "torch.utils.collect_env",
    "torch.package",
    "torch.distributed.rpc",
    "numpy.f2py",
    "tempfile",
    "urllib",
    "http",
    "requests",
};

struct FullName {
  std::string_view module;
  std::string_view name;
};

constexpr FullName kForbiddenNames[] = {
    {"builtins", "eval"},
    {"builtins", "exec"},
    {"builtins", "execfile"},
    {"builtins", "compile"},
    {"builtins", "__import__"},
    {"builtins", "open"},
    {"builtins", "input"},
    {"builtins", "breakpoint"},
    {"builtins", "globals"},
    {"builtins", "locals"},
    {"builtins", "vars"},
    {"builtins", "setattr"},
    {"builtins", "delattr"},
    {"builtins", "apply"},
    {"code", "interact"},
    {"code", "InteractiveInterpreter"},
    {"timeit", "timeit"},
    {"cProfile", "run"},
    {"cProfile", "runctx"},
    {"profile", "run"},
    {"profile", "runctx"},
    {"trace", "Trace"},
    {"operator", "attrgetter"},
    {"operator", "methodcaller"},
    {"_operator", "attrgetter"},
    {"_operator", "methodcaller"},
    {"torch", "load"},
    {"torch.serialization", "load"},
    {"torch.storage", "_load_from_bytes"},
    {"torch.jit", "load"},
    {"numpy", "load"},
};

bool Contains(std::span<const std::string_view> names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool IsOrIsBelow(std::string_view module, std::string_view ancestor) {
  return module.starts_with(ancestor) &&
         (module.size() == ancestor.size() || module[ancestor.size()] == '.');
}

std::optional<Symbol> LookUpStorageClass(std::string_view module, std::string_view name) {
  if (module != "torch" && module != "torch.cuda" && module != "torch.storage") {
    return std::nullopt;
  }
  if (name == "UntypedStorage" || name == "_UntypedStorage") {
    return Symbol{Meaning::kStorageClass, true, DType::kUInt8, true};
  }
  for (const StorageClass& row : kStorageClasses) {
    if (row.name == name) return Symbol{Meaning::kStorageClass, true, row.dtype, false};
  }
  return std::nullopt;
}

std::optional<Symbol> LookUpTorchValue(std::string_view name) {
  if (const std::optional<DType> dtype = DTypeFromName(name)) {
    return Symbol{Meaning::kDTypeValue, true, *dtype, false};
  }
  for (const DTypeAlias& alias : kDTypeAliases) {
    if (alias.name == name) return Symbol{Meaning::kDTypeValue, true, alias.dtype, false};
  }
  if (Contains(kNamedOnlyDTypes, name)) return Symbol{.meaning = Meaning::kDTypeValue};
  if (Contains(kQSchemes, name)) return Symbol{.meaning = Meaning::kQSchemeValue};
  if (Contains(kOldTensorClasses, name)) return Symbol{.meaning = Meaning::kOldTensorClass};
  return std::nullopt;
}

}  // namespace

std::string_view ModernModule(std::string_view module) {
  if (module == "__builtin__") return "builtins";
  if (module == "copy_reg") return "copyreg";
  return module;
}

std::string_view ModernName(std::string_view module, std::string_view name) {
  if (module != "__builtin__" && module != "builtins") return name;
  if (name == "xrange") return "range";
  if (name == "long") return "int";
  if (name == "unicode") return "str";
  return name;
}

Symbol LookUpSymbol(std::string_view module, std::string_view name) {
  if (const std::optional<Symbol> storage = LookUpStorageClass(module, name)) return *storage;
  for (const NamedMeaning& row : kMeanings) {
    if (row.name == name && row.module == module) return Symbol{.meaning = row.meaning};
  }
  if (module == "torch") {
    if (const std::optional<Symbol> value = LookUpTorchValue(name)) return *value;
  }
  return {};
}

bool IsForbiddenSymbol(std::string_view module, std::string_view name) {
  for (const std::string_view forbidden : kForbiddenModules) {
    if (IsOrIsBelow(module, forbidden)) return true;
  }
  for (const FullName& forbidden : kForbiddenNames) {
    if (module == forbidden.module && name == forbidden.name) return true;
  }
  // A dotted name walks attributes: torch.serialization / os.system.
  if (name.find('.') == std::string_view::npos) return false;
  std::string_view rest = name;
  while (!rest.empty()) {
    const std::size_t dot = std::min(rest.find('.'), rest.size());
    if (Contains(kForbiddenModules, rest.substr(0, dot))) return true;
    rest.remove_prefix(std::min(dot + 1, rest.size()));
  }
  return false;
}

}  // namespace relight::storage
