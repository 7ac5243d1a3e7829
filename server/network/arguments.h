// Names of kinds and of their arguments: what text calls them, and where each is kept.
//
// One list serves everything that goes through arguments without knowing the kind: reading them
// from a config or from a module's attributes, checking them, writing them down.
#ifndef RELIGHT_SERVER_NETWORK_ARGUMENTS_H_
#define RELIGHT_SERVER_NETWORK_ARGUMENTS_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "server/network/kinds.h"

namespace relight::network {

// No size in a description may be larger, so that products of two never wrap.
inline constexpr std::int64_t kMaxSize = (std::int64_t{1} << 31) - 1;

struct Argument {
  using Field =
      std::variant<bool*, std::int64_t*, std::optional<std::int64_t>*, double*,
                   std::optional<double>*, std::string*, Sizes*, std::vector<double>*, DType*>;

  const char* name;  // PyTorch's, and that of the field in model.textproto.
  Field field;       // In the kind that it was asked of.
  // Of integers, each.
  std::int64_t least = std::numeric_limits<std::int64_t>::min();
  std::int64_t most = kMaxSize;
  // 0, or no sizes at all, means that it was left out, which it must not be.
  bool required = false;
  // Of sizes: so many, or one for all. 0: any number.
  int entries = 0;
  // Of real numbers: it may be infinite.
  bool may_be_infinite = false;
  double least_real = -std::numeric_limits<double>::infinity();
  // Of texts.
  std::vector<std::string> choices = {};
};

// Adds what is wrong with each by itself, and makes one size that stands for several as many.
void CheckArguments(const std::vector<Argument>& arguments, std::vector<std::string>& errors);

// In PyTorch's order. Valid for as long as `kind` stays what and where it is.
std::vector<Argument> ArgumentsOf(LayerKind& kind);

// "linear", "batch_norm2d", ...: the field in model.textproto.
std::string KindName(const LayerKind& kind);

// The kind of that name with its defaults; nullopt where there is none.
std::optional<LayerKind> KindNamed(std::string_view name);

// Of all kinds.
const std::vector<std::string>& KindNames();

}  // namespace relight::network

#endif  // RELIGHT_SERVER_NETWORK_ARGUMENTS_H_
