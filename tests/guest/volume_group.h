// Makes a volume group of LVM2 on two raw files with lvm(8), without the kernel's device mapper.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/temp_directory.h"

namespace vc::guest_test {

// Two physical volumes of 49 extents. "linear" is extents 0 to 9 of the first volume, then 10 to 19
// of the second. "striped" alternates between extents 10 to 19 of the first and 0 to 9 of the
// second. Needs loop devices, and so root.
class VolumeGroup {
 public:
  static constexpr uint64_t kExtent = 4 << 20;
  static constexpr uint64_t kStripe = 64 << 10;
  static constexpr uint64_t kVolume = 20 * kExtent;  // the size of each logical volume

  VolumeGroup();

  const std::vector<std::string>& paths() const { return paths_; }

  struct Piece {
    size_t disk;
    uint64_t at;
    uint64_t length;
  };
  static std::vector<Piece> linear();
  static std::vector<Piece> striped();

  // Copies a file into a volume, or copies the volume out of `disks`.
  void put(const std::vector<Piece>& pieces, const std::string& from) const;
  static void take(const std::vector<std::string>& disks, const std::vector<Piece>& pieces,
                   const std::string& to);

 private:
  void lvm(std::vector<std::string> command) const;
  void create(const std::vector<std::string>& arguments) const;

  const support::TempDirectory folder_;
  std::vector<std::string> paths_;
  std::vector<std::string> loops_;
};

}  // namespace vc::guest_test
