// absl::StrCat, status messages and std::string_view: absl::string_view is another type in some of
// the distributions' builds of Abseil and the same one in others.
#ifndef RELIGHT_SERVER_RPC_CONCAT_H_
#define RELIGHT_SERVER_RPC_CONCAT_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace relight::rpc {

inline absl::string_view ToAbsl(std::string_view text) { return {text.data(), text.size()}; }

namespace internal {

inline absl::string_view Piece(std::string_view text) { return ToAbsl(text); }
template <typename T>
const T& Piece(const T& value) {
  return value;
}

}  // namespace internal

template <typename... Pieces>
std::string Concat(const Pieces&... pieces) {
  return absl::StrCat(internal::Piece(pieces)...);
}

inline std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_CONCAT_H_
