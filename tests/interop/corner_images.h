// Valid images that no tool writes, or only by chance.  QEMU reads all of them.
#pragma once

#include <string>
#include <vector>

namespace vc::interop {

struct CornerImage {
  std::string name;  // what is special
  std::string path;
};

// Makes all images in `folder`.
std::vector<CornerImage> make_corner_images(const std::string& folder);

}  // namespace vc::interop
