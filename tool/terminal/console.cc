#include "tool/terminal/console.h"

#include <unistd.h>

#include <cerrno>

#include "base/printable.h"
#include "base/retry.h"

namespace vc::tool {

namespace {

constexpr int kStandardOutput = STDOUT_FILENO;
constexpr int kStandardError = STDERR_FILENO;

void say(std::string_view kind, std::string_view message) {
  std::string line = "virt-compact: ";
  line += kind;
  line += printable(message);
  line += '\n';
  // A single write, so that lines of several programs do not mix. Errors of standard error cannot
  // be reported.
  (void)write_all(kStandardError, line);
}

}  // namespace

void Console::error(std::string_view message) const {
  say(Palette(use_color(manner_.color, kStandardError)).error("error:") + " ", message);
}

void Console::warning(std::string_view message) const {
  if (manner_.quiet) return;
  say(Palette(use_color(manner_.color, kStandardError)).warning("warning:") + " ", message);
}

void Console::note(std::string_view message) const {
  if (manner_.verbose) say("", message);
}

void Console::remark(std::string_view message) const {
  if (!manner_.quiet) say("", message);
}

void Console::tell(std::string_view text) const {
  (void)write_all(kStandardError, text);
}

void Console::hint(std::string_view text) const {
  (void)write_all(kStandardError, printable(text) + '\n');
}

Result<void> Console::print(std::string_view text) const {
  if (const int errnum = write_all(kStandardOutput, text); errnum != 0)
    return fail(Error::system(errnum, "standard output"));
  return {};
}

int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = retry(::write, fd, text.data(), text.size());
    if (put < 0) return errno;
    text.remove_prefix(static_cast<size_t>(put));
  }
  return 0;
}

}  // namespace vc::tool
