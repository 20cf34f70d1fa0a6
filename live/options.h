// The user's options for a live run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optimize/options.h"

namespace vc::live {

struct LiveOptions {
  std::string connection;  // libvirt connection URI; empty: the libvirts of this machine
  // "DOMAIN", "DOMAIN:TARGET,TARGET", or the path of a disk.
  std::vector<std::string> disks;
  // Of a QEMU without libvirt; empty: a domain of libvirt. `disks` has the path of one disk, or
  // `node` names it.
  std::string qmp_socket;
  std::string node;  // of QEMU's block layer
  bool trim = true;  // let the guest's agent trim its filesystems first
  // The run is undone if the storage has less free space, bytes: a guest without space stops.
  uint64_t reserve = uint64_t{256} << 20;
  // Takes copy, limit, backup_suffix, keep_compression, drop_bitmaps and dry_run from here.
  optimize::OptimizeOptions optimize;
};

}  // namespace vc::live
