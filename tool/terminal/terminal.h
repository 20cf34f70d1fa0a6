// Properties of the terminal behind a file descriptor.
#pragma once

#include <string>
#include <string_view>

namespace vc::tool {

bool is_terminal(int fd);

// Returns the columns of the terminal; 80 if unknown.
unsigned terminal_columns(int fd);

enum class ColorMode { kAuto, kAlways, kNever };

// Returns true if output to `fd` should have colours. kAuto: if it is a terminal with colours,
// unless the environment has a non-empty NO_COLOR (https://no-color.org).
bool use_color(ColorMode mode, int fd);

// Adds colours to text, or returns it unchanged.
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

}  // namespace vc::tool
