// A guest that writes all the time, made at test time from this machine's kernel and an init of
// ours.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/live/live_domain.h"

namespace vc::live_test {

// The kernel, the init and the disk of the guest, and what it says.
class GuestFiles {
 public:
  // Makes the files in `folder`, and the disk at `disk`, with `more` MiB that the guest does not
  // use.
  GuestFiles(const std::string& folder, const std::string& disk, unsigned more = 0);
  // Returns the files that an earlier call has made.
  static GuestFiles made_before(const std::string& folder, const std::string& disk);

  const std::string& serial() const { return serial_; }  // the guest writes its lines to this file
  // Returns the arguments of the kernel.
  static const char* kernel_arguments() { return "console=ttyS1 rdinit=/init quiet panic=-1"; }

  // Returns the lines of the guest so far.
  std::vector<std::string> lines() const;
  // Returns the lines that begin with `word`.
  std::vector<std::string> lines(const std::string& word) const;
  // Waits until the guest has flushed `flushes` more times.
  void work(unsigned flushes) const;
  // Returns what is wrong with the disk of the guest, which is off. Empty: nothing. All operations
  // that were flushed must be on it, and of those after that any.
  std::string complaint() const;

 private:
  struct Names {
    std::string serial;
    std::string disk;
  };
  explicit GuestFiles(Names names)
      : serial_(std::move(names.serial)), disk_(std::move(names.disk)) {}
  static std::string serial_in(const std::string& folder) { return folder + "/serial"; }
  void make_initrd(const std::string& folder) const;
  void make_disk(unsigned more) const;

  const std::string serial_;
  const std::string disk_;
};

class LiveGuest {
 public:
  // Makes the guest, and waits until it writes. `arguments` are further ones of its kernel; `more`
  // is that of GuestFiles.
  explicit LiveGuest(const tune_test::LibvirtDaemon& daemon, const std::string& arguments = "",
                     unsigned more = 0);

  const TestDomain& domain() const { return domain_; }
  std::vector<std::string> lines() const { return files_.lines(); }
  std::vector<std::string> lines(const std::string& word) const { return files_.lines(word); }
  void work(unsigned flushes) const { files_.work(flushes); }
  // Lets the guest end, and waits until it is off.
  void shut_down() const;
  std::string complaint() const { return files_.complaint(); }
  const GuestFiles& files() const { return files_; }

 private:
  static TestDomain::Options options(const std::string& folder, const std::string& arguments);

  TestDomain domain_;
  const GuestFiles files_;
};

}  // namespace vc::live_test
