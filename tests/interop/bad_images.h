// Images that nobody can read, or should not, and what an error about them must say.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow2/read/chain.h"

namespace vc::interop {

struct BadImage {
  std::string name;  // what is wrong
  std::string path;
  // What the message must hold, besides the name of the file it is about.
  std::string says;
  // The file that the message must name; empty: the image itself.
  std::string names_file;
  // Whether qemu-img convert, too, refuses it.
  bool qemu_refuses = true;
  // QEMU never ends on some of them.
  bool ask_qemu = true;
  // The format to open it by; nothing: its content decides.
  std::optional<qcow2::Format> format;
};

// Makes all of them in `folder`.
std::vector<BadImage> make_bad_images(const std::string& folder);

}  // namespace vc::interop
