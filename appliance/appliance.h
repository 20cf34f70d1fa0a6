// The libguestfs appliance: a small Linux in QEMU that has a guest's disks, and drivers for what is
// on them.
#pragma once

#include <guestfs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "appliance/caretaker.h"
#include "appliance/observer.h"
#include "appliance/watchdog.h"
#include "base/cancel.h"
#include "base/result.h"

namespace vc::appliance {

// Used by one thread, which lives as long as it does.
//
// When `cancel` is requested a launch is broken off at once, and a call of libguestfs that is under
// way gets some seconds to end; then QEMU is killed, which the guest's filesystems see as a power
// cut.  Ctrl-C of a terminal does not reach QEMU.
class Appliance {
 public:
  // A disk behind NBD.
  struct Drive {
    // The path of a Unix socket, on which the default export is the disk.  QEMU opens it by this
    // name, so a name in /proc/self would not do.
    std::string socket;
    bool read_only = false;
    uint64_t sector_size = 512;  // bytes: 512 or 4096
  };

  // Boots with the drives as /dev/sda, /dev/sdb …, on which trimming works down to sectors, and of
  // which zeros that are written become holes.
  //
  // KVM is tried where there is a /dev/kvm; if QEMU does not come up with it, or there is none, the
  // observer is told so, and the processor is emulated.  LIBGUESTFS_BACKEND,
  // LIBGUESTFS_BACKEND_SETTINGS and all other variables of libguestfs count.
  static Result<std::unique_ptr<Appliance>> launch(const std::vector<Drive>& drives,
                                                   Observer& observer, const Cancel& cancel);

  Appliance(const Appliance&) = delete;
  Appliance& operator=(const Appliance&) = delete;
  // Kills QEMU if it was not shut down.  Nothing is left behind but libguestfs's cache, also when
  // this process is killed, within seconds.
  ~Appliance();

  // For the functions of guestfs(3).  What they return goes through one of those below, which make
  // errors of ours of libguestfs's: "<what>: <its words>"; or "cancelled", if that is why.
  guestfs_h* handle() const { return handle_.get(); }
  Result<void> check(int returned, std::string_view what) const;
  // Takes the string over.
  Result<std::string> text(char* returned, std::string_view what) const;
  // Takes the list over.
  Result<std::vector<std::string>> list(char** returned, std::string_view what) const;
  // Of the last call, which failed.
  Error last_error(std::string_view what) const;

  // An error when somebody wants us to stop.
  Result<void> cancelled() const;

  // Whether the processor is emulated, which is slow.
  bool emulated() const { return emulated_; }

  // Unmounts everything, and ends QEMU.  That it returns well does not mean that what was written
  // is on a disk: ask the server to flush, and believe that.
  Result<void> shut_down();

 private:
  struct Close {
    void operator()(guestfs_h* handle) const { guestfs_close(handle); }
  };

  Appliance(const Cancel& cancel, bool emulated)
      : cancel_(cancel), emulated_(emulated), watchdog_(cancel) {}
  static Result<std::unique_ptr<Appliance>> try_launch(const std::vector<Drive>& drives,
                                                       const Cancel& cancel, bool emulate);
  Result<void> add(const Drive& drive, size_t index) const;

  const Cancel& cancel_;
  const bool emulated_;
  std::unique_ptr<Caretaker> caretaker_;
  std::unique_ptr<guestfs_h, Close> handle_;
  // After the handle: it stops looking for QEMU before libguestfs ends it.
  Watchdog watchdog_;
};

}  // namespace vc::appliance
