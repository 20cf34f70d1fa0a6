// All output of the command goes through this class.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "tool/terminal/terminal.h"

namespace vc::tool {

// Output options that all commands accept.
struct Manner {
  // How progress is shown. kAuto: a bar if standard error is a terminal and the job is not short.
  // kBar: a bar from the start; without a terminal, figures in qemu-img's form.
  enum class Progress { kAuto, kBar, kJson, kNone };

  bool quiet = false;
  bool verbose = false;
  bool trace = false;  // for bug reports
  Progress progress = Progress::kAuto;
  ColorMode color = ColorMode::kAuto;
};

class Console {
 public:
  explicit Console(const Manner& manner) : manner_(manner) {}

  const Manner& manner() const { return manner_; }

  // Print one line on standard error: "virt-compact: error: …". Warnings are hidden with -q, notes
  // are shown only with -v.
  void error(std::string_view message) const;
  void warning(std::string_view message) const;
  void note(std::string_view message) const;
  // Prints an automatic decision, unless quiet.
  void remark(std::string_view message) const;
  // Prints a separate line on standard error after an error.
  void hint(std::string_view text) const;

  // Prints text that would go to standard output if that were not in use.
  void tell(std::string_view text) const;

  // Writes all of `text` to standard output.
  Result<void> print(std::string_view text) const;

  // Returns the colours for printed text.
  Palette palette() const { return Palette(use_color(manner_.color, 1)); }

 private:
  Manner manner_;
};

// Writes all of `text` to a descriptor. Returns 0, or the errno; the unwritten rest is lost.
int write_all(int fd, std::string_view text);

}  // namespace vc::tool
