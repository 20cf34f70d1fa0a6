#include "tool/terminal/terminal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/catch_text.h"

using namespace tool;

namespace {

// A pseudo-terminal that exists while the object lives.
class PseudoTerminal {
 public:
  PseudoTerminal() {
    controller_ = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(controller_ >= 0);
    REQUIRE(::grantpt(controller_) == 0);
    REQUIRE(::unlockpt(controller_) == 0);
    fd_ = ::open(::ptsname(controller_), O_RDWR | O_NOCTTY | O_CLOEXEC);
    REQUIRE(fd_ >= 0);
  }
  PseudoTerminal(const PseudoTerminal&) = delete;
  PseudoTerminal& operator=(const PseudoTerminal&) = delete;
  ~PseudoTerminal() {
    ::close(fd_);
    ::close(controller_);
  }

  int fd() const { return fd_; }

 private:
  int controller_ = -1;
  int fd_ = -1;
};

}  // namespace

TEST_CASE("only terminals get colours by default", "[terminal]") {
  const PseudoTerminal terminal;
  int pipe[2];
  REQUIRE(::pipe2(pipe, O_CLOEXEC) == 0);
  ::setenv("TERM", "xterm", 1);
  ::unsetenv("NO_COLOR");
  CHECK(use_color(ColorMode::kAuto, terminal.fd()));
  CHECK_FALSE(use_color(ColorMode::kAuto, pipe[1]));
  CHECK(use_color(ColorMode::kAlways, pipe[1]));
  CHECK_FALSE(use_color(ColorMode::kNever, terminal.fd()));

  ::setenv("NO_COLOR", "1", 1);
  CHECK_FALSE(use_color(ColorMode::kAuto, terminal.fd()));
  CHECK(use_color(ColorMode::kAlways, terminal.fd()));
  ::setenv("NO_COLOR", "", 1);
  CHECK(use_color(ColorMode::kAuto, terminal.fd()));
  ::setenv("TERM", "dumb", 1);
  CHECK_FALSE(use_color(ColorMode::kAuto, terminal.fd()));
  ::unsetenv("NO_COLOR");
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST_CASE("an unknown width counts as 80 columns", "[terminal]") {
  const PseudoTerminal terminal;  // without a set size
  CHECK(terminal_columns(terminal.fd()) == 80);
}

TEST_CASE("a palette without colour leaves text alone", "[terminal]") {
  CHECK(Palette(false).error("text") == "text");
  CHECK(Palette(true).bold("text") == "\x1b[1mtext\x1b[0m");
}
