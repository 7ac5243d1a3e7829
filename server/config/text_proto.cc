#include "server/config/text_proto.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/escape.h"
#include "server/network/nearest_name.h"

namespace relight::config {
namespace {

namespace pb = ::google::protobuf;

// Far more than our messages nest; the parser recurses, so deeper text never reaches it.
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxMessageBytes = 400;

// What stands between the double quotes of `text`, in order.
std::vector<std::string> Quoted(const std::string& text) {
  std::vector<std::string> found;
  for (std::size_t at = text.find('"'); at != std::string::npos;) {
    const std::size_t end = text.find('"', at + 1);
    if (end == std::string::npos) break;
    found.push_back(text.substr(at + 1, end - at - 1));
    at = text.find('"', end + 1);
  }
  return found;
}

// protobuf says `Message type "relight.v1.Linear" has no field named "outfeatures".` nullopt where
// `message` says something else.
std::optional<std::string> UnknownField(const std::string& message) {
  const std::vector<std::string> quoted = Quoted(message);
  const bool unknown_field = message.find("has no field named") != std::string::npos;
  const pb::Descriptor* type =
      unknown_field && quoted.size() == 2
          ? pb::DescriptorPool::generated_pool()->FindMessageTypeByName(quoted[0])
          : nullptr;
  if (type == nullptr) return std::nullopt;
  std::vector<std::string> fields;
  for (int i = 0; i < type->field_count(); ++i) fields.emplace_back(type->field(i)->name());
  return absl::StrCat("unknown field \"", Escape(quoted[1]), "\"",
                      network::DidYouMean(quoted[1], fields));
}

// Unknown fields arrive as warnings, because only those let the parser go on to the next one.
class Collector : public pb::io::ErrorCollector {
 public:
  explicit Collector(ConfigErrors& errors) : errors_(errors) {}

#if GOOGLE_PROTOBUF_VERSION >= 4022000
  void RecordError(int line, pb::io::ColumnNumber column, absl::string_view message) override {
    Add(line, column, std::string(message));
  }
  void RecordWarning(int line, pb::io::ColumnNumber column, absl::string_view message) override {
    Add(line, column, std::string(message));
  }
#else
  void AddError(int line, pb::io::ColumnNumber column, const std::string& message) override {
    Add(line, column, message);
  }
  void AddWarning(int line, pb::io::ColumnNumber column, const std::string& message) override {
    Add(line, column, message);
  }
#endif

 private:
  void Add(int line, int column, const std::string& message) {
    if (std::optional<std::string> unknown = UnknownField(message)) {
      errors_.Add(line + 1, *std::move(unknown));  // The column is that of what comes next.
    } else {
      errors_.AddAt(line + 1, column + 1, Escape(message, kMaxMessageBytes));
    }
  }

  ConfigErrors& errors_;
};

int LineAt(std::string_view text, std::size_t position) {
  const std::string_view before = text.substr(0, position);
  return static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1;
}

// Where braces nest deeper than kMaxDepth, or npos. Skips comments and strings.
std::size_t FindTooDeep(std::string_view text) {
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
    } else if (c == '"' || c == '\'') {
      // A string ends at its quote, or is broken off by the end of the line.
      for (++i; i < text.size() && text[i] != c && text[i] != '\n'; ++i) {
        if (text[i] == '\\') ++i;
      }
    } else if (c == '{' || c == '<' || c == '[') {
      if (++depth > kMaxDepth) return i;
    } else if (c == '}' || c == '>' || c == ']') {
      --depth;
    }
  }
  return std::string_view::npos;
}

std::size_t FindNotUtf8(std::string_view text) {
  std::size_t start = 0;
  while (start < text.size()) {
    const std::size_t end = std::min(text.find('\n', start), text.size());
    if (!IsUtf8(text.substr(start, end - start))) return start;
    start = end + 1;
  }
  return std::string_view::npos;
}

}  // namespace

bool ParseTextProto(std::string_view text, pb::Message& message, Locations& locations,
                    ConfigErrors& errors) {
  if (text.size() > kMaxConfigBytes) {
    errors.Add(0,
               absl::StrCat("the file has ", text.size(), " bytes, the most is ", kMaxConfigBytes));
    return false;
  }
  if (const std::size_t at = FindNotUtf8(text); at != std::string_view::npos) {
    errors.Add(LineAt(text, at), "not UTF-8 text");
    return false;
  }
  if (const std::size_t at = FindTooDeep(text); at != std::string_view::npos) {
    errors.Add(LineAt(text, at), absl::StrCat("braces nest deeper than ", kMaxDepth));
    return false;
  }
  Collector collector(errors);
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(&locations);
  parser.AllowUnknownField(true);
  parser.SetRecursionLimit(kMaxDepth + 1);
  pb::io::ArrayInputStream stream(text.data(), static_cast<int>(text.size()));
  return parser.Parse(&stream, &message);
}

int Place::Line(const char* field, int index) const {
  if (locations_ == nullptr) return line_;
  const pb::FieldDescriptor* descriptor = message_->GetDescriptor()->FindFieldByName(field);
  if (descriptor->is_repeated() && index < 0) index = 0;
  const int line = locations_->GetLocation(descriptor, index).line;
  return line < 0 ? line_ : line + 1;
}

Place Place::In(const char* field, const pb::Message& message, int index) const {
  if (locations_ == nullptr) return {message, nullptr, line_};
  const pb::FieldDescriptor* descriptor = message_->GetDescriptor()->FindFieldByName(field);
  const Locations* nested = locations_->GetLocation(descriptor, index).line < 0
                                ? nullptr
                                : locations_->GetTreeForNested(descriptor, index);
  return {message, nested, Line(field, index)};
}

}  // namespace relight::config
