// Protobuf text format with errors that name their lines, also after parsing.
#ifndef RELIGHT_SERVER_CONFIG_TEXT_PROTO_H_
#define RELIGHT_SERVER_CONFIG_TEXT_PROTO_H_

#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "server/config/config_errors.h"

namespace relight::config {

inline constexpr std::size_t kMaxConfigBytes = std::size_t{1} << 20;

using Locations = google::protobuf::TextFormat::ParseInfoTree;

// Parses `text` into `message` and its `locations`. Adds to `errors` what is not text format and
// every field that does not exist. False where the text stopped making sense, so that `message`
// holds only its beginning.
bool ParseTextProto(std::string_view text, google::protobuf::Message& message, Locations& locations,
                    ConfigErrors& errors);

// Where the fields of one message stand. A view: valid for as long as what it was made from.
class Place {
 public:
  Place(const google::protobuf::Message& message, const Locations* locations, int line = 1)
      : message_(&message), locations_(locations), line_(line) {}

  // The line of a field, or of its `index`-th value; the message's own where it is absent.
  int Line(const char* field, int index = -1) const;
  // The message in a field.
  Place In(const char* field, const google::protobuf::Message& message, int index = -1) const;
  int line() const { return line_; }

 private:
  const google::protobuf::Message* message_;
  const Locations* locations_;  // Null where nothing was written inside.
  int line_;
};

}  // namespace relight::config

#endif  // RELIGHT_SERVER_CONFIG_TEXT_PROTO_H_
