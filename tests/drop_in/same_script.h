// One command line, run with qemu-img and with virt-compact in its place.
#pragma once

#include <string>
#include <vector>

namespace vc::drop_in {

using Words = std::vector<std::string>;

struct Difference {
  // What a script would stumble over: "exit code", "no JSON", the path of a key in the JSON
  // ("snapshots/name": numbers of lists are left out), or "line" of text.
  std::string what;
  std::string detail;
};

// How the two answers to `command` differ.  JSON: keys that qemu-img has and we have not, or with
// another value.  Text: lines of qemu-img's standard output that ours lacks; blanks count as one.
// Where qemu-img fails its output is not looked at.
std::vector<Difference> differences(const Words& command);

// All of them, for a message.
std::string describe(const std::vector<Difference>& differences);

}  // namespace vc::drop_in
