#include "tool/terminal/terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

namespace vc::tool {

bool is_terminal(int fd) {
  return ::isatty(fd) == 1;
}

unsigned terminal_columns(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

bool use_color(ColorMode mode, int fd) {
  if (mode != ColorMode::kAuto) return mode == ColorMode::kAlways;
  const char* no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* kind = std::getenv("TERM");
  return kind != nullptr && std::string_view(kind) != "dumb" && is_terminal(fd);
}

std::string Palette::paint(std::string_view attributes, std::string_view text) const {
  return colored_ ? fmt::format("\x1b[{}m{}\x1b[0m", attributes, text) : std::string(text);
}

}  // namespace vc::tool
