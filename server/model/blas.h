// Which BLAS is below LibTorch, and its settings. All of it looks at libraries that are already
// loaded; nothing links against a BLAS.
#ifndef RELIGHT_SERVER_MODEL_BLAS_H_
#define RELIGHT_SERVER_MODEL_BLAS_H_

#include <optional>
#include <string>

namespace relight::model {

struct BlasFacts {
  std::optional<std::string> openblas_core;  // What its run-time detection chose.
  bool mkl = false;                          // LibTorch was built with it.
  std::string mapped_libraries;              // /proc/self/maps
};
BlasFacts ObserveBlas(bool libtorch_has_mkl);

struct BlasName {
  std::string name;  // "OpenBLAS SkylakeX", "MKL", "reference", "unknown".
  bool slow = false;
};
BlasName ClassifyBlas(const BlasFacts& facts);

// What decides whether to run this program again with other kernels.
struct KernelFacts {
  std::optional<std::string> openblas_core;
  bool cpu_has_avx512 = false;    // F, BW, VL and DQ.
  bool core_type_chosen = false;  // OPENBLAS_CORETYPE is set.
  bool executed_again = false;    // We have been here before.
};
bool ShouldExecuteAgain(const KernelFacts& facts);

// Threads of one BLAS call. OpenBLAS's pthread flavour has its own pool, which
// at::set_num_threads does not govern. Nothing happens where there is no OpenBLAS.
void SetBlasThreads(int threads);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_BLAS_H_
