// The GraphFactory over LibTorch, and the process-wide settings of the libraries below it.
#ifndef RELIGHT_SERVER_MODEL_TORCH_BACKEND_H_
#define RELIGHT_SERVER_MODEL_TORCH_BACKEND_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "server/model/graph_factory.h"

namespace relight::model {

struct TorchSettings {
  int intra_op_threads = 1;  // Threads that one forward may use.
};

// One per process. Applies the settings to LibTorch and to the BLAS below it.
std::unique_ptr<GraphFactory> MakeTorchBackend(const TorchSettings& settings);

struct BackendInfo {
  std::string libtorch_version;
  std::string blas;        // "OpenBLAS SkylakeX", "reference", ...
  bool slow_blas = false;  // The reference BLAS: some 30 times slower.
  int cuda_devices = 0;
};
BackendInfo DescribeBackend();

// OpenBLAS picks its kernels when it is loaded, and versions older than the CPU mistake it for a
// Haswell. Where that happened and OPENBLAS_CORETYPE is not set, sets it and executes this program
// again, once. Call first in main; returns where there is nothing to do or exec fails.
void ReexecuteWithBestBlasKernels(char** argv);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_TORCH_BACKEND_H_
