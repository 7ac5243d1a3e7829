// What people read on a terminal: tables, colours, sizes and ages.
#ifndef RELIGHT_CLIENT_CTL_OUTPUT_H_
#define RELIGHT_CLIENT_CTL_OUTPUT_H_

#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace relight::ctl {

enum class Color : std::uint8_t { kNone, kBold, kDim, kRed, kGreen, kYellow };

// `text` between the terminal's colour codes; as it is where `enabled` is false.
std::string Paint(std::string_view text, Color color, bool enabled);

// Rows of cells, padded so that columns align; no blanks at the end of a line.
class Table {
 public:
  struct Cell {
    // Implicit, so that a row reads as a list of texts.
    Cell(std::string cell_text, Color cell_color = Color::kNone)
        : text(std::move(cell_text)), color(cell_color) {}
    std::string text;
    Color color;
  };

  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}
  void AlignRight(std::size_t column) { right_.insert(column); }
  void Add(std::vector<Cell> row) { rows_.push_back(std::move(row)); }
  std::string Render(bool color) const;
  // Of its longest line, in columns.
  std::size_t Width() const;

 private:
  std::vector<std::size_t> ColumnWidths() const;

  std::vector<std::string> header_;
  std::set<std::size_t> right_;
  std::vector<std::vector<Cell>> rows_;
};

// Columns that text takes, near enough: one per code point.
std::size_t TextWidth(std::string_view text);

// `text` broken at blanks into lines of at most `width` columns (0: as it is), all but the first
// indented by `indent`. Words that are longer stay whole.
std::string Wrap(std::string_view text, std::size_t indent, std::size_t width);
// The same for words that may have blanks in them.
std::string WrapWords(const std::vector<std::string>& words, std::size_t indent, std::size_t width);

// Columns of the terminal that stdout is; 0 where it is none.
std::size_t TerminalWidth();

// Text from a server as it may go to a terminal: control characters are escaped.
std::string Printable(std::string_view text);
// The same on one line, for a table.
std::string OneLine(std::string_view text);

std::string FormatBytes(std::uint64_t bytes);      // "1.4 MiB"
std::string FormatAge(absl::Duration age);         // "3m", "2h", "5d"
std::string FormatLocalTime(absl::Time time);      // Local, to the second.
std::string FormatTimeForJson(absl::Time time);    // RFC 3339, UTC, to the millisecond.
std::string ShortDigest(std::string_view digest);  // The first 12 digits; "-" for none.
std::string OrDash(std::string_view text);

}  // namespace relight::ctl

#endif  // RELIGHT_CLIENT_CTL_OUTPUT_H_
