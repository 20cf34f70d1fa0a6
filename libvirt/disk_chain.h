// The files of a domain's disks, from the top of the backing chain down, and the block job on each.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libvirt/xml_scanner.h"

namespace vc::libvirt {

struct DiskChain {
  struct File {
    std::string path;    // empty: not a regular file
    std::string format;  // "qcow2"; empty: not set
  };
  // The destination of a block job.
  struct Mirror {
    std::string path;
    std::string job;     // "copy", "active-commit"
    bool ready = false;  // the destination has the content of the disk
  };

  std::string type;             // "file"
  std::string device = "disk";  // "cdrom", "lun"
  std::string target;           // "vda"
  bool read_only = false;
  bool shareable = false;
  bool transient = false;
  bool encrypted = false;
  // The image has an external data file, or is a part of a file.
  bool divided = false;
  std::vector<File> files;  // the top first; the definition of a stopped domain may omit the rest
  std::optional<Mirror> mirror;

  // Positions in the text.
  std::optional<Stretch> source;   // value of the path of the top
  std::optional<Stretch> backing;  // the whole <backingStore>

  // Returns the path of the top; empty: none.
  const std::string& top() const;
};

// Parses `text`. `name` is for messages.
Result<std::vector<DiskChain>> read_disk_chains(std::string_view text, const std::string& name);

// Returns nullptr if there is no such disk.
const DiskChain* find_target(const std::vector<DiskChain>& disks, std::string_view target);

// Returns `text` with `path` as the source of the disk `target`, and without its backing chain,
// which libvirt then reads from the image. All other bytes stay. `name` is for messages.
Result<std::string> with_source(const std::string& text, const std::string& name,
                                const std::string& target, const std::string& path);

}  // namespace vc::libvirt
