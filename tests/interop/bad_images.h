// Images that must be refused, and the expected error messages.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "qcow2/read/chain.h"

namespace vc::interop {

struct BadImage {
  std::string name;  // what is wrong
  std::string path;
  // A text that the message must contain, besides the name of the file.
  std::string says;
  // The file that the message must name; empty: the image itself.
  std::string names_file;
  // qemu-img convert refuses the image, too.
  bool qemu_refuses = true;
  // False if QEMU would never end.
  bool ask_qemu = true;
  // The format to open the image with; nullopt if it is detected.
  std::optional<qcow2::Format> format;
};

// Makes all images in `folder`.
std::vector<BadImage> make_bad_images(const std::string& folder);

}  // namespace vc::interop
