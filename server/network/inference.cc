#include "server/network/inference.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checked_math.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

// A layer with more weights than this is a typo, and would only be found out when memory is.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 40;

std::string TypeName(DType dtype) { return std::string(ProtocolName(dtype)); }

const char* ImageShape(int spatial_dims) {
  static constexpr const char* kShapes[] = {"[N, C, L]", "[N, C, H, W]", "[N, C, D, H, W]"};
  return kShapes[spatial_dims - 1];
}

// The rows of a value that two are broadcast to, whose own are seen from there: `dim` counts from
// the left of the output.
Rows Merge(const Rows& a, const Rows& b) {
  if (a.state == Rows::State::kNone) return b;
  if (b.state == Rows::State::kNone) return a;
  if (a.state == Rows::State::kAlong && b.along(a.dim)) return a;
  return Rows::Mixed();
}

}  // namespace

Values Inference::Refuse(std::string message) {
  errors_.push_back(std::move(message));
  return {};
}

Values Inference::RefuseShapes(const std::string& what) {
  std::string shapes;
  for (const Value& value : inputs_.values) {
    absl::StrAppend(&shapes, shapes.empty() ? "" : " and ", ShapeText(value.shape));
  }
  return Refuse(absl::StrCat("its inputs ", what, ": ", shapes));
}

bool Inference::RequireFloat(std::size_t i) {
  if (IsFloatingPoint(in(i).dtype)) return true;
  errors_.push_back(absl::StrCat("needs a floating point input, got ", TypeName(in(i).dtype)));
  return false;
}

bool Inference::RequireRank(std::size_t least, std::size_t most, const char* names) {
  if (rank() >= least && rank() <= most) return true;
  errors_.push_back(
      absl::StrCat("needs an input of shape ", names, ", got ", ShapeText(in().shape)));
  return false;
}

bool Inference::RequireImage(int spatial_dims) {
  const auto needed = static_cast<std::size_t>(spatial_dims) + 2;
  return RequireRank(needed, needed, ImageShape(spatial_dims));
}

std::optional<std::size_t> Inference::Dimension(const char* argument, std::int64_t dim,
                                                std::size_t i) {
  const auto count = static_cast<std::int64_t>(rank(i));
  if (dim < -count || dim >= count) {
    errors_.push_back(absl::StrCat(argument, " is ", dim, ", but its input has ", count,
                                   " dimensions (shape ", ShapeText(in(i).shape), ")"));
    return std::nullopt;
  }
  return static_cast<std::size_t>(dim < 0 ? dim + count : dim);
}

std::optional<std::size_t> Inference::DimensionOf(const char* argument, std::int64_t dim,
                                                  std::size_t rank) {
  const auto count = static_cast<std::int64_t>(rank);
  if (dim < -count || dim >= count) {
    errors_.push_back(
        absl::StrCat(argument, " is ", dim, ", but its output has ", count, " dimensions"));
    return std::nullopt;
  }
  return static_cast<std::size_t>(dim < 0 ? dim + count : dim);
}

bool Inference::Settle(const char* argument, std::int64_t actual, Inferred& declared,
                       std::size_t i) {
  if (actual < 0) {
    // A free dimension is trusted to be what the layer declares.
    if (declared) return true;
    errors_.push_back(absl::StrCat(argument, " is not given and does not follow from its input ",
                                   ShapeText(in(i).shape), ": give it"));
    return false;
  }
  if (declared && *declared != actual) {
    errors_.push_back(absl::StrCat(argument, " is ", *declared, ", but its input has ", actual,
                                   " (shape ", ShapeText(in(i).shape), ")"));
    return false;
  }
  declared = actual;
  return true;
}

void Inference::CheckElements(std::initializer_list<std::int64_t> sizes) {
  std::optional<std::int64_t> product = 1;
  for (const std::int64_t size : sizes) {
    if (product) product = CheckedMul(*product, size);
  }
  if (product && *product <= kMaxElements) return;
  errors_.push_back(absl::StrCat("its weight would have more than ", kMaxElements, " elements"));
}

bool Inference::MergeTypes(DType& type, DType other) {
  if (type == other) return true;
  const bool both_float = IsFloatingPoint(type) && IsFloatingPoint(other);
  if (both_float) {
    const bool wide = type == DType::kFloat64 || other == DType::kFloat64;
    type = wide ? DType::kFloat64 : DType::kFloat32;
    return true;
  }
  if (IsFloatingPoint(type) || other == DType::kBool) return true;
  if (IsFloatingPoint(other) || type == DType::kBool) {
    type = other;
    return true;
  }
  errors_.push_back(absl::StrCat("its inputs are of types ", TypeName(type), " and ",
                                 TypeName(other), ", which do not mix"));
  return false;
}

std::optional<Value> Inference::Broadcast(absl::Span<const Value> values) {
  Value out = values[0];
  for (const Value& value : values.subspan(1)) {
    if (value.shape.size() > out.shape.size()) {
      const std::size_t more = value.shape.size() - out.shape.size();
      out.shape.insert(out.shape.begin(), more, 1);
      out.rows.dim += more;
    }
    const std::size_t offset = out.shape.size() - value.shape.size();
    Rows rows = value.rows;
    rows.dim += offset;
    out.rows = Merge(out.rows, rows);
    for (std::size_t i = 0; i < value.shape.size(); ++i) {
      std::int64_t& size = out.shape[offset + i];
      const std::int64_t other = value.shape[i];
      if (size == other || other == 1) continue;
      if (size == 1 || size < 0) {
        // A free dimension must turn out to be 1 or the other's size.
        size = other;
      } else if (other >= 0) {
        RefuseShapes(absl::StrCat("do not broadcast in dimension ", offset + i));
        return std::nullopt;
      }
    }
  }
  if (out.rows.state != Rows::State::kAlong) return out;
  // Where it is not stretched along the batch, what does not depend on it gives each row a part of
  // its own, whatever batch the row is in.
  for (const Value& value : values) {
    const std::size_t offset = out.shape.size() - value.shape.size();
    const bool stretched = out.rows.dim < offset || value.shape[out.rows.dim - offset] == 1;
    if (value.rows.state == Rows::State::kNone && !stretched) out.rows = Rows::Mixed();
    if (out.rows.state == Rows::State::kMixed) return out;
  }
  if (out.shape[out.rows.dim] >= 0) out.rows = Rows::Mixed();
  return out;
}

std::optional<std::int64_t> Product(absl::Span<const std::int64_t> sizes) {
  std::int64_t product = 1;
  bool free = false;
  for (const std::int64_t size : sizes) {
    if (size < 0) {
      free = true;
      continue;
    }
    const auto next = CheckedMul(product, size);
    if (!next || *next > kMaxSize) return std::nullopt;
    product = *next;
  }
  return free ? -1 : product;
}

const Value* LayerInputs::Find(std::size_t slot) const {
  const auto found = std::find(slots.begin(), slots.end(), slot);
  return found == slots.end() ? nullptr : &values[static_cast<std::size_t>(found - slots.begin())];
}

std::vector<Value> InferOutputs(LayerKind& kind, const LayerInputs& inputs, Messages& errors) {
  Inference inference(inputs, errors);
  return std::visit([&inference](auto& known) { return Infer(known, inference); }, kind);
}

}  // namespace relight::network
