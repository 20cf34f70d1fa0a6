// A QEMU that is started by hand, with a disk that the test writes, and its expected content.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qmp/client.h"
#include "tests/live/stopped_tool.h"
#include "tests/support/process.h"
#include "tests/support/temp_directory.h"

namespace vc::live_test {

// The names in the folder of its disk: before a run, and after it.
inline const std::vector<std::string> kDisk{"disk.qcow2"};
inline const std::vector<std::string> kDiskAndBackup{"disk.qcow2", "disk.qcow2.bak"};

class HandQemu {
 public:
  enum class Style {
    kDrive,     // -drive, with a relative name
    kBlockdev,  // nodes with names, and a thread of its own for the disk
    kFilter,    // a throttle above the image
  };
  // Makes the disk, and starts QEMU. `more` are arguments of QEMU. Without `make_disk`, the disk
  // has a reference.
  explicit HandQemu(Style style, const std::vector<std::string>& more = {},
                    const std::function<void(const std::string& disk)>& make_disk = {});

  // Starts QEMU with the same command as at first.
  void start();
  void kill();
  std::string disk() const { return folder_ / "vm/disk.qcow2"; }
  std::string socket() const { return folder_ / "qmp"; }
  std::string folder() const { return folder_.path(); }
  // Returns the path of the expected content of the disk, a raw image.
  std::string reference() const { return folder_ / "reference"; }
  // Returns the names in the folder of the disk.
  std::vector<std::string> files() const;

  // Executes a command of QEMU, which must succeed.
  nlohmann::json execute(const std::string& command,
                         nlohmann::json arguments = nlohmann::json::object());
  // Returns the status of QEMU: "running".
  std::string status();
  // Returns the names of QEMU's nodes that have `file` open.
  std::vector<std::string> nodes_of(const std::string& file);

  // Writes to the disk through QEMU, and to its reference.
  void write_some();
  // Compares the disk with its reference. Returns what is wrong; empty: nothing.
  std::string complaint() const;

  // Runs virt-compact with --qmp.
  support::Outcome tool(const std::vector<std::string>& arguments) const;
  StoppedTool stopped(const std::vector<std::string>& arguments,
                      const std::string& environment) const;

 private:
  std::vector<std::string> with_socket(std::vector<std::string> arguments) const;
  void make_written_disk() const;
  void write(uint64_t at, uint64_t length);

  support::TempDirectory folder_;
  std::vector<std::string> command_;
  std::optional<support::Child> child_;
  std::unique_ptr<qmp::Client> monitor_;
  unsigned writes_ = 0;
};

}  // namespace vc::live_test
