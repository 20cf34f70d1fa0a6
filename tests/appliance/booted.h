// An appliance for tests, with served disks.  A failure of a guestfs function ends the test.
#pragma once

#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "appliance/appliance.h"
#include "appliance/disk_server.h"
#include "tests/appliance/listening.h"

namespace vc::test {

class Booted {
 public:
  explicit Booted(const std::vector<std::string>& disks);

  guestfs_h* handle() const { return appliance_->handle(); }
  // Throws std::runtime_error with libguestfs's message if a function returned -1 or nullptr.
  void check(int returned) const;
  std::string text(char* returned) const;
  std::vector<std::string> list(char** returned) const;

  // Shuts the appliance down, after which the images are complete.  Throws if that fails.
  void finish();

 private:
  Cancel never_;
  Listening observer_;
  std::deque<appliance::GuestDisk> disks_;
  std::vector<std::unique_ptr<appliance::DiskServer>> servers_;
  std::unique_ptr<appliance::Appliance> appliance_;
};

}  // namespace vc::test
