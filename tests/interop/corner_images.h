// Valid images that tools write rarely or never. QEMU reads all of them.
#pragma once

#include <string>
#include <vector>

namespace vc::interop {

struct CornerImage {
  std::string name;  // what is special about it
  std::string path;
};

// Makes all images in `folder`.
std::vector<CornerImage> make_corner_images(const std::string& folder);

}  // namespace vc::interop
