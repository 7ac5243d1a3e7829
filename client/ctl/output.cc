#include "client/ctl/output.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/escape.h"

namespace relight::ctl {
namespace {

constexpr std::size_t kShortDigestDigits = 12;
constexpr std::size_t kMaxTextBytes = 64 * 1024;
constexpr int kBarWidth = 30;
constexpr absl::Duration kPatience = absl::Seconds(1);
constexpr absl::Duration kRedrawInterval = absl::Milliseconds(100);

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

bool IsClean(std::string_view text) {
  return IsUtf8(text) && std::none_of(text.begin(), text.end(), [](char c) {
           return (static_cast<unsigned char>(c) < 0x20 && c != '\n') || c == 0x7F;
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

std::string RenderProgress(std::string_view name, std::uint64_t done_bytes,
                           std::uint64_t total_bytes) {
  if (total_bytes == 0) return absl::StrCat(std::string(name), "  ", FormatBytes(done_bytes));
  const double share =
      std::min(1.0, static_cast<double>(done_bytes) / static_cast<double>(total_bytes));
  const auto filled = static_cast<std::size_t>(share * kBarWidth);
  return absl::StrFormat("%s  [%s%s]  %3d%%  %s of %s", std::string(name), std::string(filled, '#'),
                         std::string(kBarWidth - filled, ' '), static_cast<int>(share * 100),
                         FormatBytes(done_bytes), FormatBytes(total_bytes));
}

ProgressBar::ProgressBar(std::string name)
    : name_(std::move(name)), enabled_(isatty(STDERR_FILENO) == 1), started_(absl::Now()) {}

ProgressBar::~ProgressBar() {
  if (drawn_ != absl::InfinitePast()) std::fputs("\r\x1b[K", stderr);
}

void ProgressBar::Update(std::uint64_t done_bytes, std::uint64_t total_bytes) {
  const absl::Time now = absl::Now();
  if (!enabled_ || now - started_ < kPatience || now - drawn_ < kRedrawInterval) return;
  drawn_ = now;
  std::fputs(absl::StrCat("\r\x1b[K", RenderProgress(name_, done_bytes, total_bytes)).c_str(),
             stderr);
  std::fflush(stderr);
}

}  // namespace relight::ctl
