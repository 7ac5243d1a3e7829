#include "storage/pickle_writer.h"

#include <bit>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace relight::storage {

PickleWriter::PickleWriter() : out_("\x80\x02") {}

void PickleWriter::Little(std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
}

void PickleWriter::Int(std::int64_t value) {
  if (value >= 0 && value < 256) {
    Op('K');
    Little(static_cast<std::uint64_t>(value), 1);
  } else if (value >= 0 && value < 65536) {
    Op('M');
    Little(static_cast<std::uint64_t>(value), 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() &&
             value <= std::numeric_limits<std::int32_t>::max()) {
    Op('J');
    Little(static_cast<std::uint64_t>(value), 4);
  } else {
    std::string bytes;
    for (int i = 0; i < 8; ++i) {
      bytes.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i)));
    }
    BigInt(bytes);
  }
}

bool PickleWriter::BigInt(std::string_view bytes) {
  // Minimal: the last byte goes while the one before it has the same sign and it adds nothing.
  while (bytes.size() > 1) {
    const bool negative = (bytes[bytes.size() - 2] & 0x80) != 0;
    if (bytes.back() != (negative ? '\xff' : '\0')) break;
    bytes.remove_suffix(1);
  }
  if (bytes.size() > 255) return false;
  Op('\x8a');
  Little(bytes.size(), 1);
  out_ += bytes;
  return true;
}

void PickleWriter::Float(double value) {
  Op('G');
  const auto bits = std::bit_cast<std::uint64_t>(value);
  for (int i = 7; i >= 0; --i) out_.push_back(static_cast<char>(bits >> (8 * i)));
}

void PickleWriter::String(std::string_view utf8) {
  Op('X');
  Little(utf8.size(), 4);
  out_ += utf8;
}

void PickleWriter::Bytes(std::string_view bytes) {
  std::string latin1;
  for (const char c : bytes) {
    const auto byte = static_cast<std::uint8_t>(c);
    if (byte < 0x80) {
      latin1.push_back(c);
    } else {
      latin1.push_back(static_cast<char>(0xC0 | (byte >> 6)));
      latin1.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  Global("_codecs", "encode");
  String(latin1);
  SharedString("latin1");
  Tuple(2);
  Reduce();
}

void PickleWriter::Global(std::string_view module, std::string_view name) {
  const std::string symbol = absl::StrCat("c", std::string(module), "\n", std::string(name), "\n");
  if (Recall(symbol)) return;
  out_ += symbol;
  Remember(symbol);
}

void PickleWriter::SharedString(const std::string& text) {
  const std::string key = "X" + text;
  if (Recall(key)) return;
  String(text);
  Remember(key);
}

bool PickleWriter::Recall(const std::string& what) {
  const auto found = memo_.find(what);
  if (found == memo_.end()) return false;
  Op(found->second < 256 ? 'h' : 'j');
  Little(found->second, found->second < 256 ? 1 : 4);
  return true;
}

void PickleWriter::Remember(const std::string& what) {
  const auto index = static_cast<std::uint32_t>(memo_.size());
  memo_.emplace(what, index);
  Op(index < 256 ? 'q' : 'r');
  Little(index, index < 256 ? 1 : 4);
}

void PickleWriter::EmptyOrderedDict() {
  Global("collections", "OrderedDict");
  EmptyTuple();
  Reduce();
}

void PickleWriter::Tuple(std::size_t items) {
  constexpr char kByLength[] = {')', '\x85', '\x86', '\x87'};
  Op(NeedsMark(items) ? 't' : kByLength[items]);
}

void PickleWriter::IntTuple(absl::Span<const std::int64_t> values) {
  if (NeedsMark(values.size())) Mark();
  for (const std::int64_t value : values) Int(value);
  Tuple(values.size());
}

void PickleWriter::Storage(std::string_view module, std::string_view class_name,
                           std::string_view key, std::uint64_t elements) {
  Mark();
  SharedString("storage");
  Global(module, class_name);
  String(key);
  SharedString("cpu");
  Int(static_cast<std::int64_t>(elements));
  Op('t');
  Op('Q');
}

std::string PickleWriter::Finish() && {
  Op('.');
  return std::move(out_);
}

}  // namespace relight::storage
