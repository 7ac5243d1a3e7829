// A linear layer as it is computed.
#ifndef RELIGHT_SERVER_MODEL_LINEAR_H_
#define RELIGHT_SERVER_MODEL_LINEAR_H_

#include <ATen/core/Tensor.h>

#include "server/model/operations.h"

namespace relight::model {

// `weight`: [out_features, in_features]; `bias`: [out_features], undefined where there is none.
// `packed`: float32 on the CPU; keeps a packed copy of both beside them, for requests of two rows
// and more, [rows, in_features] or in Layout::kRows, and answers those in Layout::kRows.
Operation MakeLinear(const at::Tensor& weight, const at::Tensor& bias, bool packed);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_LINEAR_H_
