// Functions along dimensions, and of what only arranges numbers otherwise.
#include <ATen/Functions.h>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "server/model/functions.h"

namespace relight::model {
namespace {

// An empty list means no dimension to some of LibTorch's functions, and all to others.
std::vector<std::int64_t> AllDimensions(const at::Tensor& tensor) {
  std::vector<std::int64_t> dims;
  for (std::int64_t i = 0; i < tensor.dim(); ++i) dims.push_back(i);
  return dims;
}

}  // namespace

Operation MakeFunction(const network::Softmax& kind) {
  return [kind](auto& in) {
    switch (kind.op) {
      case network::SoftmaxOp::kLogSoftmax:
        return at::log_softmax(in[0], kind.dim);
      case network::SoftmaxOp::kSoftmin:
        return at::softmax(at::neg(in[0]), kind.dim);
      case network::SoftmaxOp::kSoftmax:
        break;
    }
    return at::softmax(in[0], kind.dim);
  };
}
Operation MakeFunction(const network::Glu& kind) {
  return [dim = kind.dim](auto& in) { return at::glu(in[0], dim); };
}
Operation MakeFunction(const network::Normalize& kind) {
  return [kind](auto& in) {
    const at::Tensor norm = at::norm(in[0], kind.p, at::IntArrayRef{kind.dim}, /*keepdim=*/true);
    return at::div(in[0], at::clamp_min(norm, kind.eps));
  };
}
Operation MakeFunction(const network::Reduce& kind) {
  return [kind](auto& in) {
    const std::vector<std::int64_t> dims = kind.dim.empty() ? AllDimensions(in[0]) : kind.dim;
    switch (kind.op) {
      case network::ReduceOp::kMean:
        return at::mean(in[0], dims, kind.keepdim);
      case network::ReduceOp::kSum:
        return at::sum(in[0], dims, kind.keepdim);
      case network::ReduceOp::kAmax:
        return at::amax(in[0], dims, kind.keepdim);
      case network::ReduceOp::kAmin:
        break;
    }
    return at::amin(in[0], dims, kind.keepdim);
  };
}
Operation MakeFunction(const network::ArgReduce& kind) {
  return [kind](auto& in) {
    return kind.max ? at::argmax(in[0], kind.dim, kind.keepdim)
                    : at::argmin(in[0], kind.dim, kind.keepdim);
  };
}
Operation MakeFunction(const network::Cumsum& kind) {
  return [dim = kind.dim](auto& in) { return at::cumsum(in[0], dim); };
}

Operation MakeFunction(const network::Concat& kind) {
  return [dim = kind.dim](auto& in) { return at::cat(in, dim); };
}
Operation MakeFunction(const network::Stack& kind) {
  return [dim = kind.dim](auto& in) { return at::stack(in, dim); };
}
Operation MakeFunction(const network::Flatten& kind) {
  return [kind](auto& in) { return at::flatten(in[0], kind.start_dim, kind.end_dim); };
}
Operation MakeFunction(const network::Unflatten& kind) {
  return [kind](auto& in) {
    std::vector<std::int64_t> shape = in[0].sizes().vec();
    const auto rank = static_cast<std::int64_t>(shape.size());
    const auto at = shape.begin() + (kind.dim < 0 ? kind.dim + rank : kind.dim);
    shape.insert(shape.erase(at), kind.sizes.begin(), kind.sizes.end());
    return in[0].reshape(shape);
  };
}
Operation MakeFunction(const network::Reshape& kind) {
  return [wanted = kind.shape](auto& in) {
    std::vector<std::int64_t> shape = wanted;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i] == 0) shape[i] = in[0].size(static_cast<std::int64_t>(i));
    }
    return in[0].reshape(shape);
  };
}
Operation MakeFunction(const network::Permute& kind) {
  return [dims = kind.dims](auto& in) { return at::permute(in[0], dims); };
}
Operation MakeFunction(const network::Transpose& kind) {
  return [kind](auto& in) { return at::transpose(in[0], kind.dim0, kind.dim1); };
}
Operation MakeFunction(const network::Squeeze& kind) {
  return [dim = kind.dim](auto& in) { return at::squeeze(in[0], dim); };
}
Operation MakeFunction(const network::Unsqueeze& kind) {
  return [dim = kind.dim](auto& in) { return at::unsqueeze(in[0], dim); };
}
Operation MakeFunction(const network::Select& kind) {
  return [kind](auto& in) { return at::select(in[0], kind.dim, kind.index); };
}
Operation MakeFunction(const network::Slice& kind) {
  const auto bound = [](const std::optional<std::int64_t>& value) {
    return value ? c10::optional<std::int64_t>(*value) : c10::nullopt;
  };
  return [dim = kind.dim, start = bound(kind.start), end = bound(kind.end),
          step = kind.step](auto& in) { return at::slice(in[0], dim, start, end, step); };
}
Operation MakeFunction(const network::ExpandAs& kind) {
  return [dims = kind.dim](auto& in) {
    std::vector<std::int64_t> shape = in[0].sizes().vec();
    if (dims.empty()) {
      shape = in[1].sizes().vec();
    }
    for (const std::int64_t dim : dims) {
      const std::int64_t at = dim < 0 ? dim + in[0].dim() : dim;
      shape[static_cast<std::size_t>(at)] = in[1].size(dim);
    }
    return in[0].expand(shape);
  };
}
Operation MakeFunction(const network::Arange& kind) {
  return [dim = kind.dim](auto& in) {
    return at::arange(in[0].size(dim), at::TensorOptions(at::kLong).device(in[0].device()));
  };
}

SeveralOperation MakeSplit(std::int64_t dim, std::vector<std::int64_t> sizes) {
  return
      [dim, sizes = std::move(sizes)](auto& in) { return at::split_with_sizes(in[0], sizes, dim); };
}

}  // namespace relight::model
