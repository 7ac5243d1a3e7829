#include "server/model/functions.h"

#include <ATen/Functions.h>

#include <cmath>
#include <limits>
#include <utility>

#include "server/model/torch_types.h"

namespace relight::model {
namespace {

// Whether this is the only reference to the tensor and to its memory, so that it may be written to.
// In oneDNN's layout memory belongs to one tensor.
bool IsOurs(const at::Tensor& tensor) {
  if (tensor.use_count() != 1) return false;
  if (tensor.is_mkldnn()) return true;
  return tensor.storage().use_count() == 1 && tensor.is_non_overlapping_and_dense();
}

at::Tensor Relu(at::Tensor& tensor) {
  return IsOurs(tensor) ? at::relu_(tensor) : at::relu(tensor);
}

// Of the tensor's own sort, as Python's numbers are.
at::Scalar NumberFor(const at::Tensor& tensor, double value) {
  const bool whole = std::trunc(value) == value && std::abs(value) < 9e18;
  if (!at::isFloatingType(tensor.scalar_type()) && whole) return static_cast<std::int64_t>(value);
  return value;
}

// What a type can hold: a mask's "lowest" is often float32's.
double WithinRange(at::ScalarType type, double value) {
  if (std::isinf(value)) return value;
  double most = std::numeric_limits<float>::max();
  if (type == at::kHalf) most = 65504;
  if (type == at::kBFloat16) most = static_cast<double>(std::numeric_limits<at::BFloat16>::max());
  if (type == at::kDouble || !at::isFloatingType(type)) return value;
  return std::min(std::max(value, -most), most);
}

at::Tensor Combine(network::ElementwiseOp op, const at::Tensor& a, const at::Tensor& b) {
  using network::ElementwiseOp;
  switch (op) {
    case ElementwiseOp::kAdd:
      return at::add(a, b);
    case ElementwiseOp::kMul:
      return at::mul(a, b);
    case ElementwiseOp::kSub:
      return at::sub(a, b);
    case ElementwiseOp::kRsub:
      return at::sub(b, a);
    case ElementwiseOp::kDiv:
      return at::div(a, b);
    case ElementwiseOp::kPow:
      return at::pow(a, b);
    case ElementwiseOp::kMaximum:
      return at::maximum(a, b);
    case ElementwiseOp::kMinimum:
      break;
  }
  return at::minimum(a, b);
}

at::Tensor CombineNumber(network::ElementwiseOp op, const at::Tensor& a, double value) {
  using network::ElementwiseOp;
  const at::Scalar number = NumberFor(a, value);
  switch (op) {
    case ElementwiseOp::kAdd:
      return at::add(a, number);
    case ElementwiseOp::kMul:
      return at::mul(a, number);
    case ElementwiseOp::kSub:
      return at::sub(a, number);
    case ElementwiseOp::kRsub:
      return at::rsub(a, number);
    case ElementwiseOp::kDiv:
      return at::div(a, number);
    case ElementwiseOp::kPow:
      return at::pow(a, number);
    case ElementwiseOp::kMaximum:
    case ElementwiseOp::kMinimum:
      break;
  }
  // Of the type that the answer has: an integer's for a whole number beside integers.
  const at::Tensor other =
      at::scalar_tensor(number, at::TensorOptions(at::result_type(a, number)).device(a.device()));
  return Combine(op, a, other);
}

template <typename Other>
at::Tensor CompareWith(network::CompareOp op, const at::Tensor& a, const Other& b) {
  using network::CompareOp;
  switch (op) {
    case CompareOp::kEq:
      return at::eq(a, b);
    case CompareOp::kNe:
      return at::ne(a, b);
    case CompareOp::kLt:
      return at::lt(a, b);
    case CompareOp::kLe:
      return at::le(a, b);
    case CompareOp::kGt:
      return at::gt(a, b);
    default:
      return at::ge(a, b);
  }
}

}  // namespace

at::Tensor Add(at::Tensor& to, const at::Tensor& other) {
  const bool in_place =
      IsOurs(to) && to.sizes() == other.sizes() && to.scalar_type() == other.scalar_type();
  return in_place ? to.add_(other) : at::add(to, other);
}

Operation MakeFunction(const network::Activation& kind) {
  using network::ActivationOp;
  switch (kind.op) {
    case ActivationOp::kRelu:
      return [](auto& in) { return Relu(in[0]); };
    case ActivationOp::kRelu6:
      return [](auto& in) { return at::clamp(in[0], 0, 6); };
    case ActivationOp::kSigmoid:
      return [](auto& in) { return at::sigmoid(in[0]); };
    case ActivationOp::kTanh:
      return [](auto& in) { return at::tanh(in[0]); };
    case ActivationOp::kSilu:
      return [](auto& in) { return at::silu(in[0]); };
    case ActivationOp::kHardswish:
      return [](auto& in) { return at::hardswish(in[0]); };
    case ActivationOp::kHardsigmoid:
      return [](auto& in) { return at::hardsigmoid(in[0]); };
    case ActivationOp::kSelu:
      return [](auto& in) { return at::selu(in[0]); };
    case ActivationOp::kMish:
      return [](auto& in) { return at::mish(in[0]); };
    case ActivationOp::kLogSigmoid:
      return [](auto& in) { return at::log_sigmoid(in[0]); };
    case ActivationOp::kSoftsign:
      return [](auto& in) { return at::div(in[0], at::add(at::abs(in[0]), 1)); };
    case ActivationOp::kTanhshrink:
      return [](auto& in) { return at::sub(in[0], at::tanh(in[0])); };
    case ActivationOp::kExp:
      return [](auto& in) { return at::exp(in[0]); };
    case ActivationOp::kLog:
      return [](auto& in) { return at::log(in[0]); };
    case ActivationOp::kSqrt:
      return [](auto& in) { return at::sqrt(in[0]); };
    case ActivationOp::kRsqrt:
      return [](auto& in) { return at::rsqrt(in[0]); };
    case ActivationOp::kReciprocal:
      return [](auto& in) { return at::reciprocal(in[0]); };
    case ActivationOp::kErf:
      return [](auto& in) { return at::erf(in[0]); };
    case ActivationOp::kSin:
      return [](auto& in) { return at::sin(in[0]); };
    case ActivationOp::kCos:
      return [](auto& in) { return at::cos(in[0]); };
    case ActivationOp::kAbs:
      return [](auto& in) { return at::abs(in[0]); };
    case ActivationOp::kNeg:
      return [](auto& in) { return at::neg(in[0]); };
    case ActivationOp::kSquare:
      break;
  }
  return [](auto& in) { return at::square(in[0]); };
}

Operation MakeFunction(const network::Gelu& kind) {
  return [approximate = kind.approximate](auto& in) { return at::gelu(in[0], approximate); };
}
Operation MakeFunction(const network::LeakyRelu& kind) {
  return [slope = kind.negative_slope](auto& in) { return at::leaky_relu(in[0], slope); };
}
Operation MakeFunction(const network::Elu& kind) {
  if (kind.continuous) return [alpha = kind.alpha](auto& in) { return at::celu(in[0], alpha); };
  return [alpha = kind.alpha](auto& in) { return at::elu(in[0], alpha); };
}
Operation MakeFunction(const network::Softplus& kind) {
  return [kind](auto& in) { return at::softplus(in[0], kind.beta, kind.threshold); };
}
Operation MakeFunction(const network::Hardtanh& kind) {
  return [kind](auto& in) { return at::hardtanh(in[0], kind.min_val, kind.max_val); };
}
Operation MakeFunction(const network::Clamp& kind) {
  return [kind](auto& in) {
    const auto bound = [&in](const std::optional<double>& value) {
      return value ? c10::optional<at::Scalar>(NumberFor(in[0], *value)) : c10::nullopt;
    };
    return at::clamp(in[0], bound(kind.min), bound(kind.max));
  };
}
Operation MakeFunction(const network::Shrink& kind) {
  if (kind.hard) return [lambd = kind.lambd](auto& in) { return at::hardshrink(in[0], lambd); };
  return [lambd = kind.lambd](auto& in) { return at::softshrink(in[0], lambd); };
}
Operation MakeFunction(const network::Threshold& kind) {
  return [kind](auto& in) { return at::threshold(in[0], kind.threshold, kind.value); };
}
Operation MakeFunction(const network::LogicalNot&) {
  return [](auto& in) { return at::logical_not(in[0]); };
}
Operation MakeFunction(const network::Cast& kind) {
  return [type = *TravelType(kind.datatype)](auto& in) { return in[0].to(type); };
}
Operation MakeFunction(const network::Identity&) {
  return [](auto& in) { return std::move(in[0]); };
}

Operation MakeFunction(const network::Elementwise& kind) {
  if (kind.value) {
    return [kind](auto& in) { return CombineNumber(kind.op, in[0], *kind.value); };
  }
  return [op = kind.op](auto& in) {
    at::Tensor result = std::move(in[0]);
    for (std::size_t i = 1; i < in.size(); ++i) {
      result = op == network::ElementwiseOp::kAdd ? Add(result, in[i]) : Combine(op, result, in[i]);
    }
    return result;
  };
}

Operation MakeFunction(const network::Compare& kind) {
  if (kind.op == network::CompareOp::kAnd) {
    return [](auto& in) { return at::logical_and(in[0], in[1]); };
  }
  if (kind.op == network::CompareOp::kOr) {
    return [](auto& in) { return at::logical_or(in[0], in[1]); };
  }
  if (kind.value) {
    return [kind](auto& in) { return CompareWith(kind.op, in[0], NumberFor(in[0], *kind.value)); };
  }
  return [op = kind.op](auto& in) { return CompareWith(op, in[0], in[1]); };
}

Operation MakeFunction(const network::Where&) {
  return [](auto& in) { return at::where(in[0], in[1], in[2]); };
}
Operation MakeFunction(const network::MaskedFill& kind) {
  return [value = kind.value](auto& in) {
    return at::masked_fill(in[0], in[1], NumberFor(in[0], WithinRange(in[0].scalar_type(), value)));
  };
}
Operation MakeFunction(const network::Matmul&) {
  return [](auto& in) {
    const at::ScalarType type = at::promote_types(in[0].scalar_type(), in[1].scalar_type());
    return at::matmul(in[0].to(type), in[1].to(type));
  };
}

}  // namespace relight::model
