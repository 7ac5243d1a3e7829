// Layers without parameters, as functions of tensors.
#ifndef RELIGHT_SERVER_MODEL_FUNCTIONS_H_
#define RELIGHT_SERVER_MODEL_FUNCTIONS_H_

#include <vector>

#include "server/model/operations.h"
#include "server/network/kinds.h"

namespace relight::model {

// functions.cc: of single numbers, and of several tensors.
Operation MakeFunction(const network::Activation& kind);
Operation MakeFunction(const network::Gelu& kind);
Operation MakeFunction(const network::LeakyRelu& kind);
Operation MakeFunction(const network::Elu& kind);
Operation MakeFunction(const network::Softplus& kind);
Operation MakeFunction(const network::Hardtanh& kind);
Operation MakeFunction(const network::Clamp& kind);
Operation MakeFunction(const network::Shrink& kind);
Operation MakeFunction(const network::Threshold& kind);
Operation MakeFunction(const network::LogicalNot& kind);
Operation MakeFunction(const network::Cast& kind);
Operation MakeFunction(const network::Identity& kind);
Operation MakeFunction(const network::Elementwise& kind);
Operation MakeFunction(const network::Compare& kind);
Operation MakeFunction(const network::Where& kind);
Operation MakeFunction(const network::MaskedFill& kind);
Operation MakeFunction(const network::Matmul& kind);

// dimension_functions.cc: along dimensions, and what only arranges numbers otherwise.
Operation MakeFunction(const network::Softmax& kind);
Operation MakeFunction(const network::Glu& kind);
Operation MakeFunction(const network::Normalize& kind);
Operation MakeFunction(const network::Reduce& kind);
Operation MakeFunction(const network::ArgReduce& kind);
Operation MakeFunction(const network::Cumsum& kind);
Operation MakeFunction(const network::Concat& kind);
Operation MakeFunction(const network::Stack& kind);
Operation MakeFunction(const network::Flatten& kind);
Operation MakeFunction(const network::Unflatten& kind);
Operation MakeFunction(const network::Reshape& kind);
Operation MakeFunction(const network::Permute& kind);
Operation MakeFunction(const network::Transpose& kind);
Operation MakeFunction(const network::Squeeze& kind);
Operation MakeFunction(const network::Unsqueeze& kind);
Operation MakeFunction(const network::Select& kind);
Operation MakeFunction(const network::Slice& kind);
Operation MakeFunction(const network::ExpandAs& kind);
Operation MakeFunction(const network::Arange& kind);
// Parts of these sizes along `dim`.
SeveralOperation MakeSplit(std::int64_t dim, std::vector<std::int64_t> sizes);

// window_functions.cc: of images.
Operation MakeFunction(const network::MaxPool& kind);
Operation MakeFunction(const network::AvgPool& kind);
Operation MakeFunction(const network::AdaptivePool& kind);
Operation MakeFunction(const network::LocalResponseNorm& kind);
Operation MakeFunction(const network::Pad& kind);
Operation MakeFunction(const network::Upsample& kind);
Operation MakeFunction(const network::PixelShuffle& kind);
Operation MakeFunction(const network::ChannelShuffle& kind);

// Of two inputs that are added up: into the first where nothing else needs it.
at::Tensor Add(at::Tensor& to, const at::Tensor& other);

}  // namespace relight::model

#endif  // RELIGHT_SERVER_MODEL_FUNCTIONS_H_
