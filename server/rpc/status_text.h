// Texts of errors and names on the wire.
#ifndef RELIGHT_SERVER_RPC_STATUS_TEXT_H_
#define RELIGHT_SERVER_RPC_STATUS_TEXT_H_

#include <string>
#include <string_view>

namespace relight::rpc {

// `text`, or its escape where it is not UTF-8. For messages that were put together from names that
// are escaped already: they may have several lines.
std::string Utf8(std::string_view text);

// `name` as a field of a message or a label of a metric: escaped, and never cut, for two names must
// not become one.
std::string EscapeWhole(std::string_view name);

// Clients take 8 KiB of trailers by default, in which bytes outside of printable ASCII count three
// times; an answer that is larger reaches them as a transport error without the reason. Cuts
// `message` at a character boundary so that it fits, and says so.
std::string FitTrailer(std::string_view message);

}  // namespace relight::rpc

#endif  // RELIGHT_SERVER_RPC_STATUS_TEXT_H_
