// Outputs of arithmetic: functions of single numbers, of several inputs, and along dimensions.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/network/inference.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

Values SameIfFloat(Inference& inference) {
  if (!inference.RequireFloat()) return {};
  return {inference.in()};
}

// And one that an integer can be.
bool IsWhole(double value) { return std::trunc(value) == value && std::abs(value) < 9e18; }

// Computes along `dim`: rows in it meet.
Values Along(std::int64_t dim, Inference& inference) {
  const auto found = inference.Dimension("dim", dim);
  if (!found) return {};
  Value out = inference.in();
  if (out.rows.along(*found)) out.rows = Rows::Mixed();
  return {out};
}

// Without dimension `dim`, or with a size of 1 there.
void Reduce1(Value& value, std::size_t dim, bool keepdim) {
  if (value.rows.along(dim)) value.rows = Rows::Mixed();
  if (keepdim) {
    value.shape[dim] = 1;
    return;
  }
  if (value.rows.dim > dim) --value.rows.dim;
  value.shape.erase(value.shape.begin() + static_cast<std::ptrdiff_t>(dim));
}

Values BroadcastAs(DType dtype, Inference& inference) {
  std::optional<Value> out = inference.Broadcast(inference.all());
  if (!out) return {};
  out->dtype = dtype;
  return {*std::move(out)};
}

// The type of an operation on a tensor of one type and a number.
DType WithNumber(DType type, double value) {
  if (IsFloatingPoint(type)) return type;
  if (!IsWhole(value)) return DType::kFloat32;
  return type == DType::kBool ? DType::kInt64 : type;
}

bool TakesMany(ElementwiseOp op) {
  return op == ElementwiseOp::kAdd || op == ElementwiseOp::kMul || op == ElementwiseOp::kMaximum ||
         op == ElementwiseOp::kMinimum;
}

// With a value one input, without it two, or more where `many`.
bool CheckCount(bool has_value, bool many, Inference& inference) {
  const std::size_t count = inference.all().size();
  if (has_value) {
    if (count == 1) return true;
    inference.Refuse(absl::StrCat("takes one input beside its value, got ", count));
    return false;
  }
  if (count == 2 || (count > 2 && many)) return true;
  inference.Refuse(absl::StrCat("takes two inputs", many ? " or more" : "",
                                ", or one and a value, got ", count, ": name them, as in ",
                                "input: \"a\" input: \"b\""));
  return false;
}

}  // namespace

Values Infer(Activation& layer, Inference& inference) {
  const bool of_integers = layer.op == ActivationOp::kAbs || layer.op == ActivationOp::kNeg ||
                           layer.op == ActivationOp::kSquare;
  if (of_integers && inference.in().dtype != DType::kBool) return {inference.in()};
  return SameIfFloat(inference);
}
Values Infer(Gelu&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(LeakyRelu&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Elu&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Softplus&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Hardtanh&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Shrink&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Threshold&, Inference& inference) { return SameIfFloat(inference); }
Values Infer(Identity&, Inference& inference) { return {inference.in()}; }

Values Infer(Clamp& layer, Inference& inference) {
  const bool whole = IsWhole(layer.min.value_or(0)) && IsWhole(layer.max.value_or(0));
  if (inference.in().dtype == DType::kBool || !whole) return SameIfFloat(inference);
  return {inference.in()};
}

Values Infer(LogicalNot&, Inference& inference) {
  Value out = inference.in();
  out.dtype = DType::kBool;
  return {out};
}

Values Infer(Cast& layer, Inference& inference) {
  Value out = inference.in();
  out.dtype = layer.datatype;
  return {out};
}

Values Infer(Softmax& layer, Inference& inference) {
  return inference.RequireFloat() ? Along(layer.dim, inference) : Values{};
}

Values Infer(Glu& layer, Inference& inference) {
  if (!inference.RequireFloat()) return {};
  Values out = Along(layer.dim, inference);
  if (out.empty()) return out;
  std::int64_t& size = out[0].shape[*inference.Dimension("dim", layer.dim)];
  if (size >= 0 && size % 2 != 0) {
    return inference.Refuse(absl::StrCat("halves dimension ", layer.dim, " of its input ",
                                         ShapeText(inference.in().shape), ", which is odd"));
  }
  if (size >= 0) size /= 2;
  return out;
}

Values Infer(Normalize& layer, Inference& inference) {
  return inference.RequireFloat() ? Along(layer.dim, inference) : Values{};
}

Values Infer(Cumsum& layer, Inference& inference) {
  Values out = Along(layer.dim, inference);
  if (!out.empty() && !IsFloatingPoint(out[0].dtype)) out[0].dtype = DType::kInt64;
  return out;
}

Values Infer(Reduce& layer, Inference& inference) {
  Value out = inference.in();
  if (layer.op == ReduceOp::kMean && !inference.RequireFloat()) return {};
  if (layer.op == ReduceOp::kSum && !IsFloatingPoint(out.dtype)) out.dtype = DType::kInt64;
  std::vector<std::size_t> dims;
  for (const std::int64_t dim : layer.dim) {
    const auto found = inference.Dimension("dim", dim);
    if (!found) return {};
    if (std::find(dims.begin(), dims.end(), *found) != dims.end()) {
      return inference.Refuse(absl::StrCat("dim ", dim, " is named twice"));
    }
    dims.push_back(*found);
  }
  if (layer.dim.empty()) {
    for (std::size_t i = 0; i < out.shape.size(); ++i) dims.push_back(i);
  }
  std::sort(dims.begin(), dims.end(), std::greater<>());
  for (const std::size_t dim : dims) Reduce1(out, dim, layer.keepdim);
  return {out};
}

Values Infer(ArgReduce& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  if (inference.in().dtype == DType::kBool) {
    return inference.Refuse("needs numbers, got booleans");
  }
  Value out = inference.in();
  out.dtype = DType::kInt64;
  Reduce1(out, *dim, layer.keepdim);
  return {out};
}

Values Infer(Elementwise& layer, Inference& inference) {
  if (!CheckCount(layer.value.has_value(), TakesMany(layer.op), inference)) return {};
  DType type = inference.in().dtype;
  if (layer.value) {
    type = WithNumber(type, *layer.value);
  } else {
    for (const Value& value : inference.all().subspan(1)) {
      if (!inference.MergeTypes(type, value.dtype)) return {};
    }
  }
  const bool subtracts = layer.op == ElementwiseOp::kSub || layer.op == ElementwiseOp::kRsub;
  const bool has_booleans =
      std::any_of(inference.all().begin(), inference.all().end(),
                  [](const Value& value) { return value.dtype == DType::kBool; });
  if ((subtracts && has_booleans) || (layer.op == ElementwiseOp::kPow && type == DType::kBool)) {
    return inference.Refuse("needs numbers, got booleans: make them numbers with to");
  }
  const bool negative_power = layer.op == ElementwiseOp::kPow && layer.value.value_or(0) < 0;
  if (negative_power && !IsFloatingPoint(type)) {
    return inference.Refuse("negative powers need a floating point input");
  }
  if (layer.op == ElementwiseOp::kDiv && !IsFloatingPoint(type)) type = DType::kFloat32;
  return BroadcastAs(type, inference);
}

Values Infer(Compare& layer, Inference& inference) {
  if (!CheckCount(layer.value.has_value(), false, inference)) return {};
  return BroadcastAs(DType::kBool, inference);
}

Values Infer(Where&, Inference& inference) {
  if (inference.in(0).dtype != DType::kBool) {
    return inference.Refuse("needs a condition of booleans: compare it first");
  }
  DType type = inference.in(1).dtype;
  if (!inference.MergeTypes(type, inference.in(2).dtype)) return {};
  return BroadcastAs(type, inference);
}

Values Infer(MaskedFill&, Inference& inference) {
  if (inference.in(1).dtype != DType::kBool) {
    return inference.Refuse("needs a mask of booleans: compare it first");
  }
  Values out = BroadcastAs(inference.in(0).dtype, inference);
  if (!out.empty() && out[0].shape.size() != inference.rank(0)) {
    return inference.RefuseShapes("do not broadcast to the first one's shape");
  }
  return out;
}

Values Infer(Matmul&, Inference& inference) {
  if (!inference.RequireFloat(0) || !inference.RequireFloat(1)) return {};
  Value left = inference.in(0);
  Value right = inference.in(1);
  if (left.shape.size() < 2 || right.shape.size() < 2) {
    return inference.RefuseShapes("must have two dimensions or more each");
  }
  const std::int64_t inner = left.shape.back();
  if (inner >= 0 && right.shape[right.shape.size() - 2] >= 0 &&
      inner != right.shape[right.shape.size() - 2]) {
    return inference.RefuseShapes("do not fit each other as matrices");
  }
  // Rows of the left matrix and columns of the right one stay apart; what is summed over does not.
  if (left.rows.along(left.shape.size() - 1)) left.rows = Rows::Mixed();
  if (right.rows.along(right.shape.size() - 2)) right.rows = Rows::Mixed();
  left.shape.back() = 1;
  right.shape[right.shape.size() - 2] = 1;
  DType type = left.dtype;
  if (!inference.MergeTypes(type, right.dtype)) return {};
  std::optional<Value> out = inference.Broadcast({{left, right}});
  if (!out) return {};
  out->dtype = type;
  return {*std::move(out)};
}

}  // namespace relight::network
