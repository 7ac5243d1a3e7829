#include "server/model/blas.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "server/model/torch_backend.h"

namespace relight::model {
namespace {

constexpr char kCoreTypeVariable[] = "OPENBLAS_CORETYPE";
constexpr char kExecutedAgainVariable[] = "RELIGHT_EXECUTED_FOR_BLAS";

template <typename Function>
Function* FindLoaded(const char* symbol) {
  return reinterpret_cast<Function*>(dlsym(RTLD_DEFAULT, symbol));
}

std::optional<std::string> OpenBlasCore() {
  auto* const core_name = FindLoaded<char*()>("openblas_get_corename");
  if (core_name == nullptr) return std::nullopt;
  const char* const name = core_name();
  return std::string(name == nullptr ? "unknown" : name);
}

bool CpuHasAvx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

}  // namespace

BlasFacts ObserveBlas(bool libtorch_has_mkl) {
  std::ifstream maps("/proc/self/maps");
  std::ostringstream text;
  text << maps.rdbuf();
  return {OpenBlasCore(), libtorch_has_mkl, text.str()};
}

BlasName ClassifyBlas(const BlasFacts& facts) {
  if (facts.openblas_core) return {"OpenBLAS " + *facts.openblas_core, false};
  if (facts.mkl || absl::StrContains(facts.mapped_libraries, "/libmkl_")) return {"MKL", false};
  if (absl::StrContains(facts.mapped_libraries, "/libopenblas")) return {"OpenBLAS", false};
  if (absl::StrContains(facts.mapped_libraries, "/libblis")) return {"BLIS", false};
  if (absl::StrContains(facts.mapped_libraries, "/libatlas")) return {"ATLAS", false};
  if (absl::StrContains(facts.mapped_libraries, "/libblas.so")) return {"reference", true};
  return {"unknown", false};
}

bool ShouldExecuteAgain(const KernelFacts& facts) {
  // Only the mistake that we know: a newer CPU taken for the last one before AVX-512.
  return facts.openblas_core == "Haswell" && facts.cpu_has_avx512 && !facts.core_type_chosen &&
         !facts.executed_again;
}

void SetBlasThreads(int threads) {
  auto* const set_threads = FindLoaded<void(int)>("openblas_set_num_threads");
  if (set_threads != nullptr) set_threads(threads);
}

void ReexecuteWithBestBlasKernels(char** argv) {
  const KernelFacts facts{OpenBlasCore(), CpuHasAvx512(), std::getenv(kCoreTypeVariable) != nullptr,
                          std::getenv(kExecutedAgainVariable) != nullptr};
  if (!ShouldExecuteAgain(facts)) return;
  // The program's own path rather than /proc/self/exe, so that it keeps its name in ps.
  std::string path(4096, '\0');
  const ssize_t length = readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0 || static_cast<std::size_t>(length) == path.size()) return;
  path.resize(static_cast<std::size_t>(length));
  setenv(kCoreTypeVariable, "SkylakeX", 1);
  setenv(kExecutedAgainVariable, "1", 1);
  execv(path.c_str(), argv);
  unsetenv(kCoreTypeVariable);
  unsetenv(kExecutedAgainVariable);
}

}  // namespace relight::model
