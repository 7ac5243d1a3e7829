// The opcodes of a pickle that every restricted unpickler of PyTorch takes.
#ifndef RELIGHT_STORAGE_PICKLE_WRITER_H_
#define RELIGHT_STORAGE_PICKLE_WRITER_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace relight::storage {

// Appends to a pickle of protocol 2, limited to what torch.load(weights_only=True) accepts in every
// version that has it (BINFLOAT excepted, which 1.13 lacks). Says nothing about what the opcodes
// mean together: that is its user's business.
class PickleWriter {
 public:
  PickleWriter();

  void None() { Op('N'); }
  void Bool(bool value) { Op(value ? '\x88' : '\x89'); }
  void Int(std::int64_t value);
  // Two's complement, little-endian, of any length; false (and nothing written) if over 255 bytes.
  bool BigInt(std::string_view bytes);
  void Float(double value);
  void String(std::string_view utf8);
  // As a string that is decoded again: protocol 2 has no bytes.
  void Bytes(std::string_view bytes);

  // A class or function by name. The second mention is a reference to the first.
  void Global(std::string_view module, std::string_view name);

  void Mark() { Op('('); }
  void EmptyTuple() { Op(')'); }
  void EmptyList() { Op(']'); }
  void EmptyDict() { Op('}'); }
  void EmptyOrderedDict();
  void Appends() { Op('e'); }
  void SetItems() { Op('u'); }
  // For up to three items no mark may be open, for more one must be: NeedsMark says which.
  static bool NeedsMark(std::size_t items) { return items > 3; }
  void Tuple(std::size_t items);
  void IntTuple(absl::Span<const std::int64_t> values);
  void Reduce() { Op('R'); }
  void Build() { Op('b'); }
  // Persistent id of a storage: ('storage', class, key, 'cpu', elements).
  void Storage(std::string_view module, std::string_view class_name, std::string_view key,
               std::uint64_t elements);

  // The stream so far, with STOP at its end. Nothing may be written afterwards.
  std::string Finish() &&;
  std::size_t size_bytes() const { return out_.size(); }

 private:
  void Op(char opcode) { out_.push_back(opcode); }
  void Little(std::uint64_t value, int bytes);
  // Refers to `what` if it was written before; else the caller writes it and calls Remember.
  bool Recall(const std::string& what);
  void Remember(const std::string& what);
  void SharedString(const std::string& text);

  std::string out_;
  std::map<std::string, std::uint32_t> memo_;
};

}  // namespace relight::storage

#endif  // RELIGHT_STORAGE_PICKLE_WRITER_H_
