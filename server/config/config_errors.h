// Gathers what is wrong with a model.textproto, to be told all at once.
#ifndef RELIGHT_SERVER_CONFIG_CONFIG_ERRORS_H_
#define RELIGHT_SERVER_CONFIG_CONFIG_ERRORS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace relight::config {

class ConfigErrors {
 public:
  // `line` and `column` count from 1; 0 where unknown.
  void Add(int line, std::string text) { AddAt(line, 0, std::move(text)); }
  void AddAt(int line, int column, std::string text) {
    errors_.push_back({line, column, std::move(text)});
  }
  bool empty() const { return errors_.empty(); }

  // OK where there are none, else INVALID_ARGUMENT with a line for each ("model.textproto:3:
  // what"), in the order of the file; the first 100. `file_name` is escaped already.
  absl::Status ToStatus(std::string_view file_name) const;

 private:
  struct Error {
    int line;
    int column;
    std::string text;
  };
  std::vector<Error> errors_;
};

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_CONFIG_ERRORS_H_
