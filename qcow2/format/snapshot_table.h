// Internal snapshots (qcow2 specification, "Snapshots").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace vc::qcow2 {

struct Snapshot {
  HostOffset l1_table;
  uint32_t l1_entries = 0;
  std::string id;
  std::string name;
  uint32_t date_seconds = 0;  // since the epoch
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  uint64_t vm_state_size = 0;               // bytes
  uint64_t disk_size = 0;                   // bytes; the image's size if the entry has none
  uint64_t instruction_count = UINT64_MAX;  // UINT64_MAX: not recorded
  uint32_t extra_bytes = 0;                 // of extra data, as in its entry
  // Unknown extra data, kept when the table is rewritten.
  std::vector<std::byte> unknown_extra;
};

// kRead: each L1 table must be aligned and within the limit; reading it checks whether it is within
// the file. kList: for lists only, L1 tables are not checked.
enum class SnapshotUse { kRead, kList };

// Reads all snapshots, within the limits of header.h.
Result<std::vector<Snapshot>> read_snapshot_table(const Storage& storage, const Header& header,
                                                  SnapshotUse use = SnapshotUse::kRead);

// Encodes the table as in a file of `version`.
std::vector<std::byte> encode_snapshot_table(const std::vector<Snapshot>& snapshots,
                                             uint32_t version);

// Returns the length of the table in the file, bytes.
uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots);

// Finds a snapshot by ID, else by name, like QEMU when it reads a snapshot; nullptr if there is
// none.
const Snapshot* find_snapshot(const std::vector<Snapshot>& snapshots, std::string_view id_or_name);
const Snapshot* find_snapshot_by_name(const std::vector<Snapshot>& snapshots,
                                      std::string_view name);

}  // namespace vc::qcow2
