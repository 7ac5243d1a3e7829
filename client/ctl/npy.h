// NumPy's .npy files, as far as tensors go.
#ifndef RELIGHT_CLIENT_CTL_NPY_H_
#define RELIGHT_CLIENT_CTL_NPY_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "relight/tensor.h"

namespace relight::ctl {

// The tensor that the file's bytes hold, unnamed. INVALID_ARGUMENT for what is no .npy file, is cut
// short, or holds an order or type that the protocol has not: Fortran order, big-endian numbers,
// objects.
absl::StatusOr<client::Tensor> ParseNpy(std::string_view file);

// INVALID_ARGUMENT for BF16 and BYTES, which NumPy has no types for.
absl::StatusOr<std::string> FormatNpy(const client::Tensor& tensor);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_NPY_H_
