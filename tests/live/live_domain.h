// Domains of a test whose disks are optimized while they run.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/libvirt/libvirt_daemon.h"
#include "tests/live/stopped_tool.h"
#include "tests/support/process.h"

namespace vc::live_test {

// The names in the folder of a domain with one disk: before a run, and after it.
inline const std::vector<std::string> kOriginal{"disk0.qcow2"};
inline const std::vector<std::string> kOptimized{"disk0.qcow2", "disk0.qcow2.bak"};

// A domain with disks, and files beside them.
class TestDomain {
 public:
  struct Options {
    std::string name = "web";
    unsigned disks = 1;
    std::string driver = "type='qcow2'";  // of each disk
    std::string disk_more;                // more elements of each disk
    std::string os_more;                  // more elements of the <os>
    std::string devices_more;             // more devices
    unsigned megabytes = 32;              // of memory
  };
  // Defines the domain; its disks are made by the caller: disk(i).
  TestDomain(const tune_test::LibvirtDaemon& daemon, const Options& options);

  const std::string& name() const { return name_; }
  // Returns the path of a disk: "vda", "vdb" ….
  std::string disk(unsigned index = 0) const;

  void define() const;
  void start() const;
  // Returns the state, as virsh does: "running".
  std::string state() const;
  // Returns the source of a disk. `next`: of the next start.
  std::string source(unsigned index = 0, bool next = false) const;
  // Writes `byte` to a range of the disk of the domain that runs, through QEMU, and flushes.
  void write(uint64_t at, uint64_t length, unsigned byte, unsigned index = 0) const;
  // Runs `virsh -c URI …`, which must succeed, and returns its output.
  std::string virsh(const std::vector<std::string>& words) const { return daemon_.virsh(words); }
  // Returns the process of QEMU. Throws if it does not run.
  pid_t qemu() const;
  // Kills QEMU, and waits until libvirt knows.
  void kill_qemu() const;
  // Returns the names in the folder of the disks.
  std::vector<std::string> files() const;

  // Runs virt-compact with the connection to the daemon.
  support::Outcome tool(const std::vector<std::string>& arguments) const;
  // Runs it until it stops as `environment` says.
  class Stopped : public StoppedTool {
   public:
    Stopped(const TestDomain& domain, const std::vector<std::string>& arguments,
            const std::string& environment);
  };

 private:
  std::vector<std::string> connected(std::vector<std::string> arguments) const;

  const tune_test::LibvirtDaemon& daemon_;
  const std::string name_;
  const std::string folder_;
  std::string xml_;
};

}  // namespace vc::live_test
