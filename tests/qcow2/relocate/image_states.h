// Random images with many states, and what these read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "qcow2/relocate/staying_clusters.h"
#include "storage/storage.h"
#include "tests/support/random.h"

namespace vc::test {

using Bytes = std::vector<std::byte>;

// The content of each state by name: "disk", "snapshot NAME", "bitmap NAME".
using States = std::map<std::string, Bytes>;

// Reads all states of the image in `storage`, with the VM states of snapshots.
States states_of(const std::shared_ptr<Storage>& storage);

// Checks the image.  Fails the test on damage; `leaks`: clusters may have leaked.
void require_sound(const Storage& storage, bool leaks);

// Checks the image, and compares its states.
void judge(const std::shared_ptr<Storage>& storage, const States& states, bool leaks);

// Frees leaks.  Returns whether any are left: they stay if they may be references of an empty
// table.
bool free_leaks(const std::shared_ptr<Storage>& storage);

// Leaked clusters by their places in the file, with their refcounts and bytes.
using Leaks = std::map<uint64_t, std::pair<uint64_t, Bytes>>;
Leaks leaks_of(const Storage& storage);

// Returns the clusters that stay because of leaks; nullptr: there are none.
std::shared_ptr<const qcow2::StayingClusters> staying_of(const Storage& storage);

// Returns the length of the file.
uint64_t clusters_of(const Storage& storage, unsigned cluster_bits);

struct MadeShape {
  unsigned cluster_bits = 16;
  bool compressed = false;  // has compressed clusters
  bool data_file = false;
  std::string recipe;  // the options
};

// Makes an image with QEMU's tools at `path`: random writes, compressed writes, discards, internal
// snapshots that were created and deleted, bitmaps.
MadeShape make_churned(const std::string& path, support::Random& random);

}  // namespace vc::test
