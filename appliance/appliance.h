// The libguestfs appliance: a small Linux in QEMU, with access to a guest's disks and drivers for
// their contents.
#pragma once

#include <guestfs.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "appliance/cleanup_process.h"
#include "appliance/observer.h"
#include "appliance/watchdog.h"
#include "base/cancel.h"
#include "base/result.h"
#include "nbd/proxy_note.h"

namespace vc::appliance {

// Must be used by one thread, which must live as long as the object.
//
// When `cancel` is requested, a launch is stopped at once. A running call of libguestfs gets some
// seconds to finish. Then QEMU is killed, which looks like a power cut to the guest's filesystems.
// Ctrl-C in a terminal does not reach QEMU.
// When a proxy gives up its server, QEMU is killed at once, and the call fails.
class Appliance {
 public:
  // A disk on an NBD server.
  struct Drive {
    // Path of the server's Unix socket. The default export is the disk. QEMU itself opens the path,
    // so it must not be in /proc/self.
    std::string socket;
    bool read_only = false;
    uint64_t sector_size = 512;  // bytes: 512 or 4096
    // Note of the proxy at the socket; nullptr if there is none. Must outlive the appliance.
    const nbd::ProxyNote* note = nullptr;
  };

  // Boots with the drives as /dev/sda, /dev/sdb … Sectors can be trimmed, and zeros that the guest
  // writes become holes.
  //
  // Uses KVM if /dev/kvm exists. If there is none, or if QEMU does not start with KVM, emulates the
  // processor and tells the observer. Obeys LIBGUESTFS_BACKEND, LIBGUESTFS_BACKEND_SETTINGS and all
  // other variables of libguestfs.
  static Result<std::unique_ptr<Appliance>> launch(const std::vector<Drive>& drives,
                                                   Observer& observer, const Cancel& cancel);

  // Returns the version of libguestfs, such as "1.48.6", or "unknown".
  static std::string library_version();

  Appliance(const Appliance&) = delete;
  Appliance& operator=(const Appliance&) = delete;
  // Kills QEMU if it was not shut down. Leaves nothing behind except libguestfs's cache. That holds
  // even if this process is killed: the cleanup takes some seconds.
  ~Appliance();

  // Returns the handle for functions of guestfs(3). Pass their results to one of the functions
  // below, which convert libguestfs's errors: "<what>: <libguestfs's message>", or "cancelled"
  // after a cancellation.
  guestfs_h* handle() const { return handle_.get(); }
  Result<void> check(int returned, std::string_view what) const;
  // Takes ownership of the string.
  Result<std::string> text(char* returned, std::string_view what) const;
  // Takes ownership of the list.
  Result<std::vector<std::string>> list(char** returned, std::string_view what) const;
  // Returns the error of the last call, which must have failed.
  Error last_error(std::string_view what) const;

  // Returns an error if the user has cancelled.
  Result<void> cancelled() const;

  // Returns true if the processor is emulated, which is slow.
  bool emulated() const { return emulated_; }

  // Unmounts everything and ends QEMU. Success does not mean that data is on stable storage: flush
  // the server.
  Result<void> shut_down();

 private:
  struct Close {
    void operator()(guestfs_h* handle) const { guestfs_close(handle); }
  };

  Appliance(const Cancel& cancel, bool emulated, std::vector<const nbd::ProxyNote*> notes)
      : cancel_(cancel), emulated_(emulated), watchdog_(cancel, std::move(notes)) {}
  static Result<std::unique_ptr<Appliance>> try_launch(const std::vector<Drive>& drives,
                                                       const Cancel& cancel, bool emulate);
  Result<void> add(const Drive& drive, size_t index) const;

  const Cancel& cancel_;
  const bool emulated_;
  std::unique_ptr<CleanupProcess> cleanup_;
  std::unique_ptr<guestfs_h, Close> handle_;
  // Declared after the handle: stops watching QEMU before libguestfs ends QEMU.
  Watchdog watchdog_;
};

}  // namespace vc::appliance
