// Recommended settings of a domain's disks, and the changes to its text that they need.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "libvirt/domain.h"

namespace vc::libvirt {

// Attributes of a QCOW2 disk's <driver>. nullopt: keep the current value.
struct Settings {
  std::optional<std::string> discard = "unmap";
  std::optional<std::string> detect_zeroes = "unmap";
  std::optional<std::string> cache = "none";
  std::optional<std::string> io = "native";

  // For the <blockio>: the guest's discard granularity, bytes. nullopt: the value for Windows, on
  // disks of a Windows guest that set none.
  std::optional<uint64_t> discard_granularity = {};
  bool keep_granularity = false;  // keep the current value

  // Targets of the disks to change ("vda"). Empty: all disks.
  std::vector<std::string> targets;
};

// Returns an error if libvirt does not know a value, or if values conflict.
Result<void> check(const Settings& settings);

struct Change {
  std::string attribute;
  std::string from;  // empty: attribute was missing
  std::string to;
};

struct DiskReport {
  size_t line = 0;
  std::string target;
  std::string source;
  std::string bus;
  std::string format;           // empty: not set
  std::string skipped;          // reason why the disk is skipped; empty: it is not
  std::vector<Change> changes;  // empty: nothing to change, or skipped
  std::vector<std::string> advice;
};

// The cluster size of most images. With QEMU's 4 KiB, Windows's ReTrim moves data, or trims nothing
// (virtio-win issues 666 and 1574).
inline constexpr uint64_t kWindowsGranularity = 64 << 10;

struct Tuning {
  std::string text;      // the new definition
  bool windows = false;  // the guest is assumed to be Windows
  std::vector<DiskReport> disks;

  size_t changes() const;
};

// Changes these attributes in `text` and adds missing ones. All other bytes stay. The operation is
// idempotent. `name` is for messages.
Result<Tuning> tune(std::string_view text, const std::string& name, const Settings& settings);

}  // namespace vc::libvirt
