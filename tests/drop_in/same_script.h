// Runs a command line with qemu-img, and with virt-compact instead.
#pragma once

#include <string>
#include <vector>

namespace vc::drop_in {

using Words = std::vector<std::string>;

struct Difference {
  // A difference that could break a script: "exit code", "no JSON", the path of a key in the JSON
  // ("snapshots/name"; indexes of lists are omitted), or "line" of text.
  std::string what;
  std::string detail;
};

// Returns the differences between the two results of `command`. In JSON: keys of qemu-img that are
// missing here or have another value. In text: missing lines of qemu-img's standard output; several
// blanks count as one. If qemu-img fails, its output is ignored.
std::vector<Difference> differences(const Words& command);

// Formats all differences for a message.
std::string describe(const std::vector<Difference>& differences);

}  // namespace vc::drop_in
