// Everything that the command says passes through here.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "tool/terminal/terminal.h"

namespace tool {

// How a command talks: options that all of them take.
struct Manner {
  // How progress is shown.  kAuto: a bar when standard error is a terminal and the job takes more
  // than a moment.  kBar: from the start; without a terminal, qemu-img's kind of figures.
  enum class Progress { kAuto, kBar, kJson, kNone };

  bool quiet = false;
  bool verbose = false;
  Progress progress = Progress::kAuto;
  ColorMode color = ColorMode::kAuto;
};

class Console {
 public:
  explicit Console(const Manner& manner) : manner_(manner) {}

  const Manner& manner() const { return manner_; }

  // One line each on standard error: "virt-compact: error: …".  Warnings are not shown when quiet,
  // notes only when verbose.
  void error(std::string_view message) const;
  void warning(std::string_view message) const;
  void note(std::string_view message) const;
  // What has been decided for the user, unless he wants it quiet.
  void remark(std::string_view message) const;
  // A line on standard error by itself, behind an error.
  void hint(std::string_view text) const;

  // What would be printed if standard output were not taken.
  void tell(std::string_view text) const;

  // Writes all of `text` to standard output.
  qcow2::Result<void> print(std::string_view text) const;

  // For text that is printed.
  Palette palette() const { return Palette(use_color(manner_.color, 1)); }

 private:
  Manner manner_;
};

// Writes all of `text` to a descriptor; what the system does not take is lost if it says no.
// Returns 0, or the errno.
int write_all(int fd, std::string_view text);

}  // namespace tool
