// A guest that writes all the time, made at test time from this machine's kernel and an init of
// ours.
#pragma once

#include <string>
#include <vector>

#include "tests/live/live_domain.h"

namespace vc::live_test {

class LiveGuest {
 public:
  // Makes the guest, and waits until it writes.
  explicit LiveGuest(const tune_test::LibvirtDaemon& daemon);

  const TestDomain& domain() const { return domain_; }
  // Returns the lines of the guest so far.
  std::vector<std::string> lines() const;
  // Returns the lines that begin with `word`.
  std::vector<std::string> lines(const std::string& word) const;
  // Waits until the guest has flushed `flushes` more times.
  void work(unsigned flushes) const;
  // Lets the guest end, and waits until it is off.
  void shut_down() const;
  // Returns what is wrong with the disk of the guest, which is off. Empty: nothing. All operations
  // that were flushed must be on it, and of those after that any.
  std::string complaint() const;

 private:
  static TestDomain::Options options(const std::string& folder);
  void make_initrd(const std::string& folder) const;
  void make_disk() const;

  const std::string serial_;
  TestDomain domain_;
};

}  // namespace vc::live_test
