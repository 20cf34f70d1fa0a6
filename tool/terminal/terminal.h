// What is on the other side of a file descriptor.
#pragma once

#include <string>
#include <string_view>

namespace tool {

bool is_terminal(int fd);

// Columns of the terminal; 80 when it does not say.
unsigned terminal_columns(int fd);

enum class ColorMode { kAuto, kAlways, kNever };

// Whether to colour what goes to `fd`.  kAuto: on a terminal that is able to, unless the
// environment has a NO_COLOR that is not empty (https://no-color.org).
bool use_color(ColorMode mode, int fd);

// Marks text with colours, or leaves it alone.
class Palette {
 public:
  explicit Palette(bool colored) : colored_(colored) {}

  std::string bold(std::string_view text) const { return paint("1", text); }
  std::string error(std::string_view text) const { return paint("1;31", text); }
  std::string warning(std::string_view text) const { return paint("1;33", text); }
  std::string good(std::string_view text) const { return paint("1;32", text); }

 private:
  std::string paint(std::string_view attributes, std::string_view text) const;

  bool colored_;
};

}  // namespace tool
