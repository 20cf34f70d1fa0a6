// Random images with internal snapshots.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/random.h"

namespace vc::interop {

// A state of an image: its active disk, or a snapshot.
struct MadeState {
  std::string name;      // of the snapshot; empty: the active disk
  std::string disk;      // raw file with the bytes of the disk
  std::string vm_state;  // raw file with the bytes of the VM state; empty: it has none
};

struct SnapshotImage {
  std::string path;
  std::vector<MadeState> states;  // the active disk first
  uint64_t cluster_size = 0;      // bytes
  bool has_backing = false;
  bool is_v3 = true;
  std::string recipe;  // the commands that made it, one per line
};

// Makes an image with up to `most` snapshots, of which disks differ in size and some have a VM
// state, in `folder`, which must be empty.
SnapshotImage make_snapshot_image(support::Random& random, const std::string& folder,
                                  uint64_t most);

// Reads a state of an image. `number` counts snapshots from 1; 0: the active disk. Works on a copy
// of the image beside it, so that names of backing files stay valid. Writes to files with the
// prefix `to`.
MadeState read_state(const std::string& image, size_t number, const std::string& to);

// Adds a snapshot with a VM state of a machine that never ran.
void save_machine(const std::string& image, const std::string& name);

}  // namespace vc::interop
