#include "server/model/linear.h"

#include <ATen/Functions.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "server/model/layer_tensors.h"

namespace relight::model {
namespace {

// Asked for the product of two matrices, OpenBLAS rearranges all of the weights first, which takes
// four times as long as the product with a vector. Small layers gain nothing.
bool IsLargeTimesVector(const at::Tensor& in, const at::Tensor& weight) {
  constexpr std::int64_t kLargeElements = 128 * 128;
  const bool in_blas = weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kDouble;
  return in.numel() == weight.size(1) && weight.numel() >= kLargeElements && in_blas &&
         weight.is_cpu();
}

at::Tensor Linear(const at::Tensor& in, const at::Tensor& weight, const at::Tensor& transposed,
                  const at::Tensor& bias) {
  if (!IsLargeTimesVector(in, weight)) {
    if (in.dim() != 2) return at::linear(in, weight, bias);
    // What at::linear comes to, without making the same view at each call.
    return bias.defined() ? at::addmm(bias, in, transposed) : at::mm(in, transposed);
  }
  std::vector<std::int64_t> shape = in.sizes().vec();
  shape.back() = weight.size(0);
  const at::Tensor vector = in.reshape({-1});
  return (bias.defined() ? at::addmv(bias, weight, vector) : at::mv(weight, vector)).view(shape);
}

at::Tensor AsImage(const at::Tensor& rows) {
  return rows.t().reshape({1, rows.size(1), 1, rows.size(0)}).to_mkldnn();
}

// A linear layer is a convolution of single pixels, and of these oneDNN takes packed weights.
class PackedLinear {
 public:
  PackedLinear(const at::Tensor& weight, const at::Tensor& bias)
      : weight_(at::mkldnn_reorder_conv2d_weight(
            weight.contiguous().view({weight.size(0), weight.size(1), 1, 1}).to_mkldnn(),
            /*padding=*/{0, 0}, /*stride=*/{1, 1}, /*dilation=*/{1, 1}, /*groups=*/1)),
        bias_(bias.defined() ? bias.contiguous().to_mkldnn() : at::Tensor()) {}

  at::Tensor operator()(const at::Tensor& in) const {
    return at::mkldnn_convolution(in.is_mkldnn() ? in : AsImage(in), weight_, bias_,
                                  /*padding=*/{0, 0}, /*stride=*/{1, 1}, /*dilation=*/{1, 1},
                                  /*groups=*/1);
  }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

}  // namespace

Operation MakeLinear(const at::Tensor& weight, const at::Tensor& bias, bool packed) {
  Operation plain = [weight, transposed = weight.t(), bias](std::vector<at::Tensor>& in) {
    return Linear(InTypeOf(in[0], weight), weight, transposed, bias);
  };
  if (!packed) return plain;
  return [plain = std::move(plain), packed_linear = PackedLinear(weight, bias),
          weight](std::vector<at::Tensor>& in) {
    if (in[0].is_mkldnn()) return packed_linear(in[0]);
    if (in[0].size(0) < 2) return plain(in);
    return packed_linear(InTypeOf(in[0], weight));
  };
}

}  // namespace relight::model
