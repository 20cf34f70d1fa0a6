// What a user calls a disk, and what can be told of it before anything starts.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "appliance/observer.h"
#include "base/cancel.h"
#include "base/result.h"
#include "nbd/tuning.h"
#include "qcow2/read/chain.h"

namespace vc::appliance {

struct DiskName {
  std::string name;                     // a path or an NBD URI; unless there is a command
  std::vector<std::string> command;     // "[ COMMAND ARGS… ]": a server to start
  std::optional<qcow2::Format> format;  // of a file; without it the content decides
  std::string shown{};                  // what messages call it; empty: its name
  qcow2::NamePolicy names = {};         // which files it may name; kLeaveOut is not for a guest
  std::chrono::seconds timeout = nbd::NbdTuning().timeout;  // of a server; 0: none
};

struct GuestDisk {
  std::string name;  // for messages
  DiskName given;
  // Only of a file (or a block device):
  bool local = false;
  qcow2::Format format = qcow2::Format::kRaw;
  std::string data_file;       // external, of the image; empty: none
  std::string backing;         // the name in the image; empty: none
  size_t snapshots = 0;        // internal ones
  uint64_t granularity = 512;  // what can be given back at once, bytes
  // Holds a raw file's lock, which its server does not know of; nullptr else.
  std::shared_ptr<FileStorage> lock;
};

// What the disk's files take.
struct FileFigures {
  uint64_t length = 0;   // bytes, of image and external data file together
  uint64_t on_disk = 0;  // bytes of blocks
};

// Nothing for what is no regular file.
std::optional<FileFigures> file_figures(const GuestDisk& disk);

// An error when it cannot be opened (for writing, if `writing`), or somebody else uses it.  What a
// server has to say comes later.
Result<GuestDisk> look_at(const DiskName& name, bool writing);

// Tells of internal snapshots and of a backing file, which keep what is trimmed from being given
// back.
void warn_of_what_is_behind(const GuestDisk& disk, Observer& observer);

}  // namespace vc::appliance
