#include "client/ctl/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/escape.h"

namespace relight::ctl {
namespace {

constexpr std::size_t kShortDigestDigits = 12;
constexpr std::size_t kMaxTextBytes = 64 * 1024;

std::string_view Code(Color color) {
  switch (color) {
    case Color::kNone:
      return "";
    case Color::kBold:
      return "\x1b[1m";
    case Color::kDim:
      return "\x1b[2m";
    case Color::kRed:
      return "\x1b[31m";
    case Color::kGreen:
      return "\x1b[32m";
    case Color::kYellow:
      return "\x1b[33m";
  }
  return "";
}

// Whether the last of two characters ends a C1 control (U+0080..U+009F), which some terminals obey
// as they obey ESC and a letter.
bool EndsC1Control(char lead, char last) {
  return lead == '\xC2' && static_cast<unsigned char>(last) < 0xA0;
}

bool IsClean(std::string_view text) {
  if (!IsUtf8(text)) return false;
  char before = '\0';
  return std::none_of(text.begin(), text.end(), [&](char c) {
    const bool c1 = EndsC1Control(std::exchange(before, c), c);
    return (static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7F || c1;
  });
}

}  // namespace

std::string Paint(std::string_view text, Color color, bool enabled) {
  std::string painted(text);
  if (!enabled || color == Color::kNone || text.empty()) return painted;
  return absl::StrCat(std::string(Code(color)), painted, "\x1b[0m");
}

std::vector<std::size_t> Table::ColumnWidths() const {
  std::vector<std::size_t> widths;
  for (const std::string& title : header_) widths.push_back(TextWidth(title));
  for (const std::vector<Cell>& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], TextWidth(row[i].text));
  }
  return widths;
}

std::size_t Table::Width() const {
  std::size_t width = 0;
  for (const std::size_t column : ColumnWidths()) width += column + (width == 0 ? 0 : 2);
  return width;
}

std::string Table::Render(bool color) const {
  const std::vector<std::size_t> widths = ColumnWidths();
  std::string out;
  const auto add_line = [&](const std::vector<Cell>& cells) {
    std::string line;
    std::size_t end = 0;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      const std::size_t padding = widths[i] - TextWidth(cells[i].text);
      if (right_.contains(i)) line.append(padding, ' ');
      absl::StrAppend(&line, Paint(cells[i].text, cells[i].color, color));
      if (!cells[i].text.empty()) end = line.size();
      line.append((right_.contains(i) ? 0 : padding) + 2, ' ');
    }
    absl::StrAppend(&out, line.substr(0, end), "\n");
  };
  std::vector<Cell> header;
  for (const std::string& title : header_) header.emplace_back(title, Color::kBold);
  add_line(header);
  for (const std::vector<Cell>& row : rows_) add_line(row);
  return out;
}

std::size_t TextWidth(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string Wrap(std::string_view text, std::size_t indent, std::size_t width) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const std::size_t blank = std::min(text.find(' '), text.size());
    words.emplace_back(text.substr(0, blank));
    text.remove_prefix(std::min(blank + 1, text.size()));
  }
  return WrapWords(words, indent, width);
}

std::string WrapWords(const std::vector<std::string>& words, std::size_t indent,
                      std::size_t width) {
  std::string out;
  std::size_t column = indent;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::size_t columns = TextWidth(words[i]);
    if (i > 0 && width != 0 && column + 1 + columns > width) {
      absl::StrAppend(&out, "\n", std::string(indent, ' '));
      column = indent;
    } else if (i > 0) {
      out += ' ';
      ++column;
    }
    out += words[i];
    column += columns;
  }
  return out;
}

std::size_t TerminalWidth() {
  winsize size{};
  if (isatty(STDOUT_FILENO) != 1 || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0) return 0;
  return size.ws_col;
}

std::string Printable(std::string_view text) {
  if (IsClean(text)) return std::string(text);
  return Escape(text, kMaxTextBytes);
}

std::string OneLine(std::string_view text) {
  std::string line = Printable(text);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

std::string FormatBytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return absl::StrCat(bytes, " bytes");
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

std::string FormatAge(absl::Duration age) {
  if (age < absl::Seconds(1)) return "now";
  if (age < absl::Minutes(2)) return absl::StrCat(absl::ToInt64Seconds(age), "s");
  if (age < absl::Hours(2)) return absl::StrCat(absl::ToInt64Minutes(age), "m");
  if (age < absl::Hours(48)) return absl::StrCat(absl::ToInt64Hours(age), "h");
  return absl::StrCat(absl::ToInt64Hours(age) / 24, "d");
}

std::string FormatLocalTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", time, absl::LocalTimeZone());
}

std::string FormatTimeForJson(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", time, absl::UTCTimeZone());
}

std::string ShortDigest(std::string_view digest) {
  return OrDash(OneLine(digest.substr(0, kShortDigestDigits)));
}

std::string OrDash(std::string_view text) { return text.empty() ? "-" : std::string(text); }

}  // namespace relight::ctl
