// A used filesystem in a raw file: it was filled, partly emptied, and filled again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "guest/reading/ranges.h"
#include "tests/support/random.h"
#include "tests/support/temp_directory.h"

namespace vc::guest_test {

// How to make, check and mount a type of filesystem.
struct Kind {
  std::string name;
  uint64_t size;                   // of the volume, bytes
  std::vector<std::string> make;   // the volume's path is added
  std::vector<std::string> check;  // same; exit code 0 if there is no error
  std::string mount;               // for mount(8), ntfs-3g or mount.exfat-fuse; empty: mtools
  std::string mount_options{};
};

// Returns the reason why this process cannot mount such a volume. Empty if it can.
std::string why_no_volume(const Kind& kind);

class LivedInVolume {
 public:
  // Throws std::runtime_error if a tool fails.
  LivedInVolume(const Kind& kind, support::Random& random);

  const std::string& path() const { return path_; }
  // Returns a copy of the mounted filesystem, with a file that was just written and synced.
  std::string copy_while_mounted(support::Random& random);

  // Returns a copy in which all of `ranges` is overwritten.
  std::string copy_with_garbage(const guest::Ranges& ranges) const;
  // Returns the problem of such a copy: the output of fsck, or the files that differ. Empty if
  // there is none.
  std::string complaint(const std::string& copy) const;
  // Same after the copy was mounted, filled with other files, and unmounted.
  std::string complaint_after_use(const std::string& copy) const;
  size_t files() const { return files_.size(); }

 private:
  class Access;

  void add_files(const Access& access, uint64_t bytes, support::Random& random);
  void remove_files(const Access& access, unsigned percent, support::Random& random);

  const Kind kind_;
  const support::TempDirectory folder_;
  const std::string path_;
  uint64_t seed_;
  unsigned next_ = 0;            // number of the next file
  std::vector<unsigned> files_;  // existing files
};

}  // namespace vc::guest_test
