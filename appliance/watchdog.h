// Kills QEMU after a cancellation or the loss of a server, since libguestfs has no function that
// interrupts a call.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "appliance/cleanup_process.h"
#include "base/cancel.h"
#include "base/mutex.h"
#include "nbd/proxy_note.h"
#include "storage/descriptor.h"

namespace vc::appliance {

// A thread that polls `cancel` and the notes of proxies.
class Watchdog {
 public:
  // Must be made by the thread that will call guestfs_launch(). `cancel` and the notes must
  // outlive the object.
  Watchdog(const Cancel& cancel, std::vector<const nbd::ProxyNote*> notes);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { stop(); }

  // Begins the watch over a launch: a QEMU started by this thread is killed at once after a
  // cancellation or the loss of a server, and with `limited`, also after half a minute. `program`:
  // name of QEMU's program, without folders. Shows libguestfs's socket to `cleanup`, which must
  // outlive the thread.
  void launching(std::string program, bool limited, CleanupProcess& cleanup);
  // Ends the launch, and begins the watch over this QEMU: it is killed some seconds after a
  // cancellation, and at once after the loss of a server.
  void launched(pid_t qemu);
  // Ends the watch. Nothing is killed afterwards.
  void stop();
  // Same, and kills QEMU now, if it is known.
  void stop_with_qemu();

 private:
  void run();
  bool server_lost() const;
  void kill_children() const REQUIRES(mutex_);

  const Cancel& cancel_;
  const std::vector<const nbd::ProxyNote*> notes_;
  const pid_t launcher_;  // ID of the launching thread

  Mutex mutex_;
  ConditionVariable wake_;
  bool launching_ GUARDED_BY(mutex_) = false;
  bool limited_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;
  // Set until the cleanup process has seen the socket.
  CleanupProcess* cleanup_ GUARDED_BY(mutex_) = nullptr;
  // A descriptor of the process, since its ID may be reused later.
  Descriptor qemu_ GUARDED_BY(mutex_);
  std::string program_ GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace vc::appliance
