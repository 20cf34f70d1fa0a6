// A domain without a guest, whose disks the test writes through QEMU, and their expected content.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/live/live_domain.h"

namespace vc::live_test {

inline constexpr uint64_t kMiB = 1 << 20;

// Optimizes the disk of the domain "web".
inline const std::vector<std::string> kRun{"optimize", "--live", "--force", "--no-fstrim", "web"};

class WrittenDisks {
 public:
  explicit WrittenDisks(const tune_test::LibvirtDaemon& daemon, unsigned disks = 1)
      : WrittenDisks(daemon, options(disks)) {}
  WrittenDisks(const tune_test::LibvirtDaemon& daemon, const TestDomain::Options& options);

  const TestDomain& domain() const { return domain_; }
  // Returns the path of the expected content of a disk, a raw image.
  std::string reference(unsigned index = 0) const;

  // Writes to a disk and to its reference.
  void write(uint64_t at, uint64_t length, unsigned index = 0);
  // Writes that cover clusters, parts of clusters, old data and unused space.
  void write_some(unsigned index = 0);

  // Returns what is wrong with a disk of the domain, which is off. Empty: nothing.
  std::string complaint(unsigned index = 0) const;

  static TestDomain::Options options(unsigned disks) {
    TestDomain::Options options;
    options.disks = disks;
    return options;
  }

 private:
  void make(unsigned index);
  TestDomain domain_;
  const std::string reference_;
  unsigned writes_ = 0;
};

}  // namespace vc::live_test
