// CheckArguments: each argument by itself, as its description has it.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "base/escape.h"
#include "server/network/arguments.h"

namespace relight::network {
namespace {

class ArgumentCheck {
 public:
  ArgumentCheck(const Argument& argument, std::vector<std::string>& errors)
      : argument_(argument), errors_(errors) {}

  void operator()(const bool*) const {}
  void operator()(const DType*) const {}

  void operator()(const std::int64_t* value) const {
    if (argument_.required && *value == 0) return Missing();
    CheckRange(*value);
  }
  void operator()(const std::optional<std::int64_t>* value) const {
    if (value->has_value()) CheckRange(**value);
  }
  void operator()(Sizes* sizes) const {
    if (argument_.required && sizes->empty()) return Missing();
    const auto entries = static_cast<std::size_t>(argument_.entries);
    if (entries > 0 && sizes->size() > 1 && sizes->size() != entries) {
      errors_.push_back(absl::StrCat(argument_.name, " has ", sizes->size(),
                                     " values: give one for all dimensions",
                                     entries > 1 ? absl::StrCat(", or ", entries) : ""));
      return;
    }
    if (sizes->size() == 1 && entries > 1) sizes->resize(entries, sizes->front());
    for (std::size_t i = 0; i < sizes->size(); ++i) {
      const bool seen = std::find(sizes->begin(), sizes->begin() + static_cast<std::ptrdiff_t>(i),
                                  (*sizes)[i]) != sizes->begin() + static_cast<std::ptrdiff_t>(i);
      if (seen) continue;
      if (argument_.required && argument_.least == 1 && (*sizes)[i] == 0) return Missing();
      CheckRange((*sizes)[i]);
    }
  }

  void operator()(const double* value) const { CheckReal(*value); }
  void operator()(const std::optional<double>* value) const {
    if (value->has_value()) CheckReal(**value);
  }
  void operator()(const std::vector<double>* values) const {
    for (const double value : *values) CheckReal(value);
  }

  void operator()(const std::string* text) const {
    const auto& choices = argument_.choices;
    if (std::find(choices.begin(), choices.end(), *text) != choices.end()) return;
    const auto all_but_last = absl::MakeConstSpan(choices).subspan(0, choices.size() - 1);
    errors_.push_back(absl::StrCat(argument_.name, " is \"", Escape(*text), "\", it can be \"",
                                   absl::StrJoin(all_but_last, "\", \""), "\" or \"",
                                   choices.back(), "\""));
  }

 private:
  void Missing() const {
    errors_.push_back(absl::StrCat(argument_.name, " is missing or 0: give at least 1"));
  }

  void CheckRange(std::int64_t value) const {
    if (value < argument_.least) {
      errors_.push_back(
          absl::StrCat(argument_.name, " is ", value, ", the least is ", argument_.least));
    } else if (value > argument_.most) {
      errors_.push_back(
          absl::StrCat(argument_.name, " is ", value, ", the most is ", argument_.most));
    }
  }

  void CheckReal(double value) const {
    if (!std::isfinite(value) && (!argument_.may_be_infinite || std::isnan(value))) {
      errors_.push_back(absl::StrCat(argument_.name, " is ", value, ", which is not a ",
                                     argument_.may_be_infinite ? "" : "finite ", "number"));
    } else if (value < argument_.least_real) {
      errors_.push_back(
          absl::StrCat(argument_.name, " is ", value, ", the least is ", argument_.least_real));
    }
  }

  const Argument& argument_;
  std::vector<std::string>& errors_;
};

}  // namespace

void CheckArguments(const std::vector<Argument>& arguments, std::vector<std::string>& errors) {
  for (const Argument& argument : arguments) {
    std::visit(ArgumentCheck(argument, errors), argument.field);
  }
}

}  // namespace relight::network
