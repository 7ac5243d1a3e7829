// Outputs of what only arranges numbers otherwise.
#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "server/network/inference.h"
#include "server/network/tensor_spec.h"

namespace relight::network {
namespace {

Values TooLarge(const char* what, Inference& inference) {
  return inference.Refuse(absl::StrCat(what, " ", ShapeText(inference.in().shape), " to more than ",
                                       kMaxSize, " elements"));
}

// Takes a dimension out.
void Drop(Value& value, std::size_t dim) {
  if (value.rows.along(dim)) value.rows = Rows::Mixed();
  if (value.rows.dim > dim) --value.rows.dim;
  value.shape.erase(value.shape.begin() + static_cast<std::ptrdiff_t>(dim));
}

void Insert(Value& value, std::size_t dim, std::int64_t size) {
  if (value.rows.dim >= dim) ++value.rows.dim;
  value.shape.insert(value.shape.begin() + static_cast<std::ptrdiff_t>(dim), size);
}

// All inputs must be alike but for dimension `dim` (none: everywhere). The first, with sizes that
// another one knows.
std::optional<Value> MakeAlike(std::optional<std::size_t> dim, Inference& inference) {
  Value out = inference.in();
  bool same_for_all_rows = out.rows.state == Rows::State::kNone;
  for (const Value& in : inference.all().subspan(1)) {
    same_for_all_rows = same_for_all_rows || in.rows.state == Rows::State::kNone;
    if (in.shape.size() != out.shape.size()) {
      inference.RefuseShapes("differ in their number of dimensions");
      return std::nullopt;
    }
    if (!inference.MergeTypes(out.dtype, in.dtype)) return std::nullopt;
    if (out.rows.state == Rows::State::kNone) {
      out.rows = in.rows;
    } else if (in.rows.state != Rows::State::kNone && !in.rows.along(out.rows.dim)) {
      out.rows = Rows::Mixed();
    }
    for (std::size_t i = 0; i < out.shape.size(); ++i) {
      if (i == dim) continue;
      if (out.shape[i] < 0) {
        out.shape[i] = in.shape[i];
      } else if (in.shape[i] >= 0 && in.shape[i] != out.shape[i]) {
        inference.RefuseShapes(absl::StrCat("differ in dimension ", i));
        return std::nullopt;
      }
    }
  }
  // Beside rows, what does not depend on them has a part for each, whatever batch they are in.
  const bool along = out.rows.state == Rows::State::kAlong;
  if (along && (dim == out.rows.dim || out.shape[out.rows.dim] >= 0 || same_for_all_rows)) {
    out.rows = Rows::Mixed();
  }
  return out;
}

// What -1 stands for among `sizes`, whose product is to be `total` (-1: not known). False where
// they cannot be.
bool FillIn(Sizes& sizes, std::int64_t total) {
  const auto open = std::find(sizes.begin(), sizes.end(), -1);
  std::int64_t known = 1;
  for (const std::int64_t size : sizes) {
    if (size >= 0) known *= size;
  }
  if (total < 0) return true;
  if (open == sizes.end()) return known == total;
  if (known == 0 || total % known != 0) return false;
  *open = total / known;
  return true;
}

// One part of a split.
Value Part(const Value& whole, std::size_t dim, std::int64_t size) {
  Value part = whole;
  part.shape[dim] = size;
  if (part.rows.along(dim)) part.rows = Rows::Mixed();
  return part;
}

constexpr std::int64_t kMostParts = 1024;

// Parts of `size`, the last one smaller.
Values PartsOf(std::int64_t size, std::size_t dim, Inference& inference) {
  const std::int64_t whole = inference.in().shape[dim];
  Values parts;
  if ((whole + size - 1) / size > kMostParts) {
    return inference.Refuse(absl::StrCat("splits its input into more than ", kMostParts, " parts"));
  }
  for (std::int64_t begin = 0; begin < whole; begin += size) {
    parts.push_back(Part(inference.in(), dim, std::min(size, whole - begin)));
  }
  return parts;
}

}  // namespace

Values Infer(Concat& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  std::optional<Value> out = MakeAlike(*dim, inference);
  if (!out) return {};
  std::int64_t total = 0;
  for (const Value& in : inference.all()) {
    const bool free = total < 0 || in.shape[*dim] < 0;
    total = free ? -1 : total + in.shape[*dim];
    if (total > kMaxSize) return inference.Refuse("its output would be too large");
  }
  out->shape[*dim] = total;
  return {*std::move(out)};
}

Values Infer(Stack& layer, Inference& inference) {
  const auto dim = inference.DimensionOf("dim", layer.dim, inference.rank() + 1);
  if (!dim) return {};
  if (inference.rank() >= kMaxRank) return inference.Refuse("its output has too many dimensions");
  std::optional<Value> out = MakeAlike(std::nullopt, inference);
  if (!out) return {};
  Insert(*out, *dim, static_cast<std::int64_t>(inference.all().size()));
  return {*std::move(out)};
}

Values Infer(Flatten& layer, Inference& inference) {
  const Value& in = inference.in();
  const auto start = inference.Dimension("start_dim", layer.start_dim);
  const auto end = inference.Dimension("end_dim", layer.end_dim);
  if (!start || !end) return {};
  if (*start > *end) {
    return inference.Refuse(absl::StrCat("start_dim ", layer.start_dim, " comes after end_dim ",
                                         layer.end_dim, " in an input of shape ",
                                         ShapeText(in.shape)));
  }
  const auto product = Product(absl::MakeConstSpan(in.shape).subspan(*start, *end - *start + 1));
  if (!product) return TooLarge("flattens", inference);
  Value out{.dtype = in.dtype, .shape = {}, .rows = in.rows};
  out.shape.assign(in.shape.begin(), in.shape.begin() + static_cast<std::ptrdiff_t>(*start));
  out.shape.push_back(*product);
  out.shape.insert(out.shape.end(), in.shape.begin() + static_cast<std::ptrdiff_t>(*end) + 1,
                   in.shape.end());
  if (in.rows.state == Rows::State::kAlong && in.rows.dim >= *start && *start < *end) {
    out.rows = in.rows.dim > *end ? Rows::Along(in.rows.dim - (*end - *start)) : Rows::Mixed();
  }
  return {out};
}

Values Infer(Unflatten& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  Value out = inference.in();
  Sizes sizes = layer.sizes;
  if (!Product(sizes) || !FillIn(sizes, out.shape[*dim])) {
    return inference.Refuse(absl::StrCat("sizes ", ShapeText(layer.sizes), " do not make ",
                                         out.shape[*dim], ", the size of dimension ", layer.dim,
                                         " of its input ", ShapeText(out.shape)));
  }
  if (out.shape.size() + sizes.size() - 1 > kMaxRank) {
    return inference.Refuse("its output has too many dimensions");
  }
  if (out.rows.along(*dim)) {
    // A given size is that of some batches only.
    if (sizes.size() != 1 || layer.sizes[0] >= 0) out.rows = Rows::Mixed();
  } else if (out.rows.dim > *dim) {
    out.rows.dim += sizes.size() - 1;
  }
  const auto at = out.shape.erase(out.shape.begin() + static_cast<std::ptrdiff_t>(*dim));
  out.shape.insert(at, sizes.begin(), sizes.end());
  return {out};
}

Values Infer(Reshape& layer, Inference& inference) {
  const Value& in = inference.in();
  if (layer.shape.size() > kMaxRank) {
    return inference.Refuse("its output has too many dimensions");
  }
  // What is taken over stands for itself, whatever it is; the rest must have as many elements.
  Value out{.dtype = in.dtype, .shape = layer.shape, .rows = in.rows};
  Sizes rest;
  std::vector<bool> copied(in.shape.size(), false);
  for (std::size_t i = 0; i < layer.shape.size(); ++i) {
    if (layer.shape[i] != 0) {
      rest.push_back(layer.shape[i]);
      continue;
    }
    if (i >= in.shape.size()) {
      return inference.Refuse(absl::StrCat("shape ", ShapeText(layer.shape), " has a 0 at place ",
                                           i, ", where its input ", ShapeText(in.shape),
                                           " has nothing"));
    }
    out.shape[i] = in.shape[i];
    copied[i] = true;
  }
  Sizes given;
  for (std::size_t i = 0; i < in.shape.size(); ++i) {
    if (!copied[i]) given.push_back(in.shape[i]);
  }
  const auto total = Product(given);
  if (!total || !Product(rest)) return TooLarge("reshapes", inference);
  if (!FillIn(rest, *total)) {
    return inference.Refuse(absl::StrCat("cannot make shape ", ShapeText(layer.shape),
                                         " of its input ", ShapeText(in.shape)));
  }
  std::size_t next = 0;
  for (std::size_t i = 0; i < layer.shape.size(); ++i) {
    if (layer.shape[i] != 0) out.shape[i] = rest[next++];
  }
  if (in.rows.state != Rows::State::kAlong) return {out};
  // Rows stay rows where nothing before them changes, and neither does what each row has.
  const std::size_t at = in.rows.dim;
  const auto same = [&](std::size_t i) {
    return layer.shape[i] == 0 || (in.shape[i] >= 0 && layer.shape[i] == in.shape[i]);
  };
  bool kept = at < layer.shape.size();
  for (std::size_t i = 0; kept && i < at; ++i) kept = same(i);
  if (kept && layer.shape[at] != 0) {
    const auto before = Product(absl::MakeConstSpan(in.shape).subspan(at + 1));
    const auto after = Product(absl::MakeConstSpan(out.shape).subspan(at + 1));
    kept = layer.shape[at] == -1 && before && after && *before >= 0 && *before == *after;
  }
  if (!kept) out.rows = Rows::Mixed();
  return {out};
}

Values Infer(Permute& layer, Inference& inference) {
  const Value& in = inference.in();
  Value out{.dtype = in.dtype, .shape = {}, .rows = in.rows};
  std::vector<bool> used(in.shape.size(), false);
  for (const std::int64_t dim : layer.dims) {
    const auto from = inference.Dimension("dims", dim);
    if (!from) return {};
    if (used[*from]) return inference.Refuse(absl::StrCat("dims names ", dim, " twice"));
    used[*from] = true;
    if (in.rows.along(*from)) out.rows = Rows::Along(out.shape.size());
    out.shape.push_back(in.shape[*from]);
  }
  if (out.shape.size() != in.shape.size()) {
    return inference.Refuse(absl::StrCat("dims has ", layer.dims.size(),
                                         " dimensions, its input is ", ShapeText(in.shape)));
  }
  return {out};
}

Values Infer(Transpose& layer, Inference& inference) {
  const auto one = inference.Dimension("dim0", layer.dim0);
  const auto other = inference.Dimension("dim1", layer.dim1);
  if (!one || !other) return {};
  Value out = inference.in();
  std::swap(out.shape[*one], out.shape[*other]);
  if (inference.in().rows.along(*one)) out.rows.dim = *other;
  if (inference.in().rows.along(*other)) out.rows.dim = *one;
  return {out};
}

Values Infer(Squeeze& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  Value out = inference.in();
  if (out.shape[*dim] != 1) {
    return inference.Refuse(
        absl::StrCat("dimension ", layer.dim, " of its input ", ShapeText(out.shape), " is not 1"));
  }
  Drop(out, *dim);
  return {out};
}

Values Infer(Unsqueeze& layer, Inference& inference) {
  const auto dim = inference.DimensionOf("dim", layer.dim, inference.rank() + 1);
  if (!dim) return {};
  if (inference.rank() >= kMaxRank) return inference.Refuse("its output has too many dimensions");
  Value out = inference.in();
  Insert(out, *dim, 1);
  return {out};
}

Values Infer(Select& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  Value out = inference.in();
  const std::int64_t size = out.shape[*dim];
  if (size >= 0 && (layer.index < -size || layer.index >= size)) {
    return inference.Refuse(absl::StrCat("index is ", layer.index, ", dimension ", layer.dim,
                                         " of its input ", ShapeText(out.shape), " has ", size));
  }
  Drop(out, *dim);
  return {out};
}

Values Infer(Slice& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  Value out = inference.in();
  const bool whole = layer.start.value_or(0) == 0 && !layer.end && layer.step == 1;
  if (whole) return {out};
  if (out.rows.along(*dim)) out.rows = Rows::Mixed();
  std::int64_t& size = out.shape[*dim];
  if (size < 0) return {out};
  const auto place = [size](std::int64_t at) {
    return std::clamp<std::int64_t>(at < 0 ? at + size : at, 0, size);
  };
  const std::int64_t start = place(layer.start.value_or(0));
  const std::int64_t end = place(layer.end.value_or(size));
  if (end <= start) {
    return inference.Refuse(absl::StrCat("leaves nothing of dimension ", layer.dim,
                                         " of its input ", ShapeText(inference.in().shape)));
  }
  size = (end - start + layer.step - 1) / layer.step;
  return {out};
}

Values Infer(Split& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  const std::int64_t whole = inference.in().shape[*dim];
  if (layer.split_size.size() > 1) {
    std::int64_t sum = 0;
    for (const std::int64_t size : layer.split_size) sum += size;
    if (whole >= 0 && sum != whole) {
      return inference.Refuse(absl::StrCat("split_size adds up to ", sum, ", dimension ", layer.dim,
                                           " of its input ", ShapeText(inference.in().shape),
                                           " has ", whole));
    }
    if (layer.split_size.size() > static_cast<std::size_t>(kMostParts)) {
      return inference.Refuse(
          absl::StrCat("splits its input into more than ", kMostParts, " parts"));
    }
    Values parts;
    for (const std::int64_t size : layer.split_size) {
      parts.push_back(Part(inference.in(), *dim, size));
    }
    return parts;
  }
  if (whole < 0) {
    return inference.Refuse(absl::StrCat("dimension ", layer.dim, " of its input ",
                                         ShapeText(inference.in().shape),
                                         " is free: give the size of each part"));
  }
  return PartsOf(layer.split_size[0], *dim, inference);
}

Values Infer(Chunk& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  const std::int64_t whole = inference.in().shape[*dim];
  if (whole < 0) {
    return inference.Refuse(absl::StrCat("dimension ", layer.dim, " of its input ",
                                         ShapeText(inference.in().shape),
                                         " is free, so that the chunks are not known"));
  }
  return PartsOf((whole + layer.chunks - 1) / layer.chunks, *dim, inference);
}

Values Infer(ExpandAs& layer, Inference& inference) {
  Value out = inference.in(0);
  const Value& like = inference.in(1);
  Sizes dims = layer.dim;
  if (dims.empty()) {
    if (out.shape.size() != like.shape.size()) {
      return inference.RefuseShapes("differ in their number of dimensions");
    }
    for (std::size_t i = 0; i < out.shape.size(); ++i) {
      dims.push_back(static_cast<std::int64_t>(i));
    }
  }
  for (const std::int64_t dim : dims) {
    const auto at = inference.Dimension("dim", dim, 0);
    const auto from = inference.Dimension("dim", dim, 1);
    if (!at || !from) return {};
    std::int64_t& size = out.shape[*at];
    if (size != 1) {
      const bool known = size >= 0 && like.shape[*from] >= 0;
      if (known && size != like.shape[*from]) {
        return inference.RefuseShapes(absl::StrCat("differ in dimension ", dim));
      }
      // A free size may turn out to be 1 and be stretched: then rows would be counted in it.
      if (!known && out.rows.along(*at) != like.rows.along(*from)) out.rows = Rows::Mixed();
      continue;
    }
    size = like.shape[*from];
    // The same for each row, where they were not told apart before. Else what follows could count
    // rows in this dimension.
    if (like.rows.along(*from)) {
      out.rows = out.rows.state == Rows::State::kNone ? Rows::Along(*at) : Rows::Mixed();
    }
  }
  return {out};
}

Values Infer(Arange& layer, Inference& inference) {
  const auto dim = inference.Dimension("dim", layer.dim);
  if (!dim) return {};
  const Value& in = inference.in();
  return {{.dtype = DType::kInt64,
           .shape = {in.shape[*dim]},
           .rows = in.rows.along(*dim) ? Rows::Mixed() : Rows::None()}};
}

}  // namespace relight::network
