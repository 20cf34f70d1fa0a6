#include "libvirt/unified_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace vc::libvirt {

namespace {

using Lines = std::vector<std::string_view>;  // each with its newline

constexpr size_t kContext = 3;
// Maximum lines to search for the end of a difference: enough for a value of several lines.
constexpr size_t kFarthest = 64;

// Lines [a, a_end) of the old text became [b, b_end) of the new text.
struct Piece {
  size_t a, a_end, b, b_end;
};

Lines lines_of(std::string_view text) {
  Lines lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const size_t length = end == std::string_view::npos ? text.size() : end + 1;
    lines.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return lines;
}

// Returns the piece that begins here.
Piece piece_at(const Lines& a, const Lines& b, size_t i, size_t j) {
  for (size_t sum = 1; sum <= kFarthest; ++sum)
    for (size_t p = 0; p <= sum; ++p) {
      const size_t q = sum - p;
      const bool ends = i + p == a.size() && j + q == b.size();
      if (ends || (i + p < a.size() && j + q < b.size() && a[i + p] == b[j + q]))
        return {i, i + p, j, j + q};
    }
  return {i, a.size(), j, b.size()};
}

std::vector<Piece> pieces_of(const Lines& a, const Lines& b) {
  std::vector<Piece> pieces;
  size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      ++i;
      ++j;
      continue;
    }
    pieces.push_back(piece_at(a, b, i, j));
    i = pieces.back().a_end;
    j = pieces.back().b_end;
  }
  return pieces;
}

void append_lines(std::string& text, char mark, const Lines& lines, size_t from, size_t to) {
  for (size_t i = from; i < to; ++i) {
    text += mark;
    text += lines[i];
    if (!lines[i].ends_with('\n')) text += "\n\\ No newline at end of file\n";
  }
}

// Formats start and length: "12,7".
std::string range(size_t from, size_t to) {
  return fmt::format("{},{}", to > from ? from + 1 : from, to - from);
}

}  // namespace

std::string unified_diff(std::string_view before, std::string_view after, const std::string& name) {
  const Lines a = lines_of(before);
  const Lines b = lines_of(after);
  const std::vector<Piece> pieces = pieces_of(a, b);
  if (pieces.empty()) return "";
  std::string text = fmt::format("--- {}\n+++ {}\n", name, name);
  for (size_t first = 0; first < pieces.size();) {
    size_t last = first;
    while (last + 1 < pieces.size() && pieces[last + 1].a - pieces[last].a_end <= 2 * kContext)
      ++last;
    const size_t lead = std::min(kContext, pieces[first].a);
    const size_t trail = std::min(kContext, a.size() - pieces[last].a_end);
    text +=
        fmt::format("@@ -{} +{} @@\n", range(pieces[first].a - lead, pieces[last].a_end + trail),
                    range(pieces[first].b - lead, pieces[last].b_end + trail));
    append_lines(text, ' ', a, pieces[first].a - lead, pieces[first].a);
    for (size_t i = first; i <= last; ++i) {
      append_lines(text, '-', a, pieces[i].a, pieces[i].a_end);
      append_lines(text, '+', b, pieces[i].b, pieces[i].b_end);
      const size_t next = i < last ? pieces[i + 1].a : pieces[i].a_end + trail;
      append_lines(text, ' ', a, pieces[i].a_end, next);
    }
    first = last + 1;
  }
  return text;
}

}  // namespace vc::libvirt
