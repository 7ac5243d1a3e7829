#include "storage/zip_writer.h"

#include <libdeflate.h>

#include <algorithm>
#include <concepts>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace relight::storage {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::string_view kRoot = "archive/";
// From here on a value moves to a zip64 field; miniz, which PyTorch uses, counts the value itself
// in.
constexpr std::uint64_t kZip64From = 0xFFFFFFFF;
constexpr std::uint16_t kUtf8Name = 0x0800;
constexpr std::uint16_t kHasDescriptor = 0x0008;

void PutInteger(std::string& out, std::unsigned_integral auto value) {
  for (std::size_t i = 0; i < sizeof(value); ++i) {
    out.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i)));
  }
}
void Put16(std::string& out, std::uint64_t value) {
  PutInteger(out, static_cast<std::uint16_t>(std::min<std::uint64_t>(value, 0xFFFF)));
}
void Put32(std::string& out, std::uint64_t value) {
  PutInteger(out, static_cast<std::uint32_t>(std::min<std::uint64_t>(value, 0xFFFFFFFF)));
}
void Put64(std::string& out, std::uint64_t value) { PutInteger(out, value); }

bool NeedsZip64(std::uint64_t offset, std::uint64_t size_bytes) {
  return offset >= kZip64From || size_bytes >= kZip64From;
}

// The zip64 block of an entry; empty where no value needs it.
std::string Zip64Block(std::uint64_t offset, std::uint64_t size_bytes, std::uint64_t packed_bytes) {
  std::string values;
  if (size_bytes >= kZip64From) {
    Put64(values, size_bytes);
    Put64(values, packed_bytes);
  }
  if (offset >= kZip64From) Put64(values, offset);
  if (values.empty()) return values;
  std::string block;
  Put16(block, 1);
  Put16(block, values.size());
  return block + values;
}

std::uint16_t Flags(std::uint64_t size_bytes) {
  return static_cast<std::uint16_t>(kUtf8Name | (size_bytes > 0 ? kHasDescriptor : 0));
}

// With padding, so that what follows it is aligned. Checksum and sizes stay 0: they come later.
std::string LocalHeader(const std::string& name, std::uint64_t offset, std::uint64_t size_bytes) {
  std::string extra = Zip64Block(offset, size_bytes, 0);
  const std::uint64_t start = offset + 30 + name.size() + 4 + extra.size();
  const std::uint64_t padding = (kAlignment - start % kAlignment) % kAlignment;
  extra += "FB";
  Put16(extra, padding);
  extra.append(padding, 'Z');
  std::string header = "PK\x03\x04";
  Put16(header, 0);  // Version needed.
  Put16(header, Flags(size_bytes));
  header.append(2 + 2 + 2 + 4 + 4 + 4, '\0');  // Stored; time, date, checksum, two sizes.
  Put16(header, name.size());
  Put16(header, extra.size());
  return header + name + extra;
}

std::string Descriptor(std::uint64_t offset, std::uint64_t size_bytes, std::uint32_t crc32) {
  std::string descriptor = "PK\x07\x08";
  Put32(descriptor, crc32);
  for (int i = 0; i < 2; ++i) {
    NeedsZip64(offset, size_bytes) ? Put64(descriptor, size_bytes) : Put32(descriptor, size_bytes);
  }
  return descriptor;
}

std::string CentralHeader(const std::string& name, std::uint64_t offset, std::uint64_t size_bytes,
                          std::uint32_t crc32) {
  const std::string extra = Zip64Block(offset, size_bytes, size_bytes);
  std::string header = "PK\x01\x02";
  Put32(header, 0);  // Versions made by and needed.
  Put16(header, Flags(size_bytes));
  header.append(2 + 2 + 2, '\0');  // Stored; time, date.
  Put32(header, crc32);
  Put32(header, size_bytes);
  Put32(header, size_bytes);
  Put16(header, name.size());
  Put16(header, extra.size());
  header.append(2 + 2 + 2 + 4, '\0');  // Comment, disk, attributes.
  Put32(header, offset);
  return header + name + extra;
}

std::string EndRecords(std::uint64_t entries, std::uint64_t directory_offset,
                       std::uint64_t directory_bytes) {
  std::string end = "PK\x06\x06";
  Put64(end, 44);  // Bytes of this record that follow.
  Put16(end, 0x031E);
  Put16(end, 45);
  Put64(end, 0);  // Two disk numbers.
  Put64(end, entries);
  Put64(end, entries);
  Put64(end, directory_bytes);
  Put64(end, directory_offset);
  end += "PK\x06\x07";
  Put32(end, 0);
  Put64(end, directory_offset + directory_bytes);
  Put32(end, 1);
  end += "PK\x05\x06";
  Put32(end, 0);  // Two disk numbers.
  Put16(end, entries);
  Put16(end, entries);
  Put32(end, directory_bytes);
  Put32(end, directory_offset);
  Put16(end, 0);  // Comment.
  return end;
}

}  // namespace

absl::Status ZipWriter::Begin(std::string_view name, std::uint64_t size_bytes) {
  Entry entry{absl::StrCat(std::string(kRoot), std::string(name)), offset_, size_bytes, 0};
  const std::string header = LocalHeader(entry.name, entry.offset, size_bytes);
  entries_.push_back(std::move(entry));
  left_in_entry_ = size_bytes;
  return Put(header);
}

absl::Status ZipWriter::Append(absl::Span<const std::byte> bytes) {
  if (bytes.size() > left_in_entry_) {
    return absl::DataLossError(absl::StrCat("record ", entries_.back().name, " got more than its ",
                                            entries_.back().size_bytes, " bytes"));
  }
  left_in_entry_ -= bytes.size();
  entries_.back().crc32 = libdeflate_crc32(entries_.back().crc32, bytes.data(), bytes.size());
  return Put(bytes);
}

void ZipWriter::SkipData() {
  offset_ += left_in_entry_;
  left_in_entry_ = 0;
}

absl::Status ZipWriter::End() {
  const Entry& entry = entries_.back();
  if (left_in_entry_ != 0) {
    return absl::DataLossError(absl::StrCat("record ", entry.name, " lacks ", left_in_entry_,
                                            " of its ", entry.size_bytes, " bytes"));
  }
  if (entry.size_bytes == 0) return absl::OkStatus();
  return Put(Descriptor(entry.offset, entry.size_bytes, entry.crc32));
}

absl::Status ZipWriter::Add(std::string_view name, std::string_view content) {
  RELIGHT_RETURN_IF_ERROR(Begin(name, content.size()));
  RELIGHT_RETURN_IF_ERROR(
      Append({reinterpret_cast<const std::byte*>(content.data()), content.size()}));
  return End();
}

absl::Status ZipWriter::Finish() {
  const std::uint64_t directory_offset = offset_;
  for (const Entry& entry : entries_) {
    RELIGHT_RETURN_IF_ERROR(
        Put(CentralHeader(entry.name, entry.offset, entry.size_bytes, entry.crc32)));
  }
  RELIGHT_RETURN_IF_ERROR(
      Put(EndRecords(entries_.size(), directory_offset, offset_ - directory_offset)));
  return out_.Flush();
}

std::string ZipWriter::SerializationId() const {
  std::uint32_t names = 0;
  std::uint32_t contents = 0;
  for (const Entry& entry : entries_) {
    names = libdeflate_crc32(names, entry.name.data(), entry.name.size());
    std::string crc;
    Put32(crc, entry.crc32);
    contents = libdeflate_crc32(contents, crc.data(), crc.size());
  }
  return absl::StrFormat("%020d%020d", names, contents);
}

absl::Status ZipWriter::Put(std::string_view text) {
  offset_ += text.size();
  return out_.Put(text);
}

absl::Status ZipWriter::Put(absl::Span<const std::byte> bytes) {
  offset_ += bytes.size();
  return out_.Put(bytes);
}

}  // namespace relight::storage
