// Internal snapshots (QCOW2 text, "Snapshots").
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "qcow2/format/header.h"
#include "storage/offset.h"
#include "storage/storage.h"

namespace qcow2 {

struct Snapshot {
  HostOffset l1_table;
  uint32_t l1_entries = 0;
  std::string id;
  std::string name;
  uint32_t date_seconds = 0;  // since the epoch
  uint32_t date_nanoseconds = 0;
  uint64_t vm_clock_nanoseconds = 0;
  uint64_t vm_state_size = 0;               // bytes
  uint64_t disk_size = 0;                   // bytes; the image's own where the entry does not say
  uint64_t instruction_count = UINT64_MAX;  // UINT64_MAX: not recorded
  uint32_t extra_bytes = 0;                 // of extra data, as its entry has it
  // Extra data past what we know, kept through a rewrite.
  std::vector<std::byte> unknown_extra;
};

// kRead: every L1 table is aligned and no larger than the limit; whether it lies within the file is
// said when it is read.  kList: for those who only tell of them, it may be anything.
enum class SnapshotUse { kRead, kList };

// Reads all of them, within the limits of header.h.
Result<std::vector<Snapshot>> read_snapshot_table(const Storage& storage, const Header& header,
                                                  SnapshotUse use = SnapshotUse::kRead);

// Their table as it stands in a file of `version`.
std::vector<std::byte> encode_snapshot_table(const std::vector<Snapshot>& snapshots,
                                             uint32_t version);

// The length of their table in the file, bytes.
uint64_t snapshot_table_bytes(const std::vector<Snapshot>& snapshots);

// By id, else by name, as QEMU looks for a disk to show; nullptr when there is none.
const Snapshot* find_snapshot(const std::vector<Snapshot>& snapshots, std::string_view id_or_name);
const Snapshot* find_snapshot_by_name(const std::vector<Snapshot>& snapshots,
                                      std::string_view name);

}  // namespace qcow2
