// Ends QEMU when the user has had enough, or when a server is gone: libguestfs has no call that
// breaks off another.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>
#include <vector>

#include "appliance/caretaker.h"
#include "base/cancel.h"
#include "base/mutex.h"
#include "nbd/proxy_note.h"

namespace vc::appliance {

// A thread that looks at `cancel`, and at the notes of proxies.
class Watchdog {
 public:
  // Must be made by the thread that will call guestfs_launch(). `cancel` and the notes must
  // outlive the object.
  Watchdog(const Cancel& cancel, std::vector<const nbd::ProxyNote*> notes);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { stop(); }

  // The launch begins: from now on a QEMU (whose program has this name, without folders) that the
  // thread starts is killed at once when cancelled or when a server is lost, and if `limited` after
  // half a minute, too. `caretaker`, which outlives the thread, is shown libguestfs's socket.
  void launching(std::string program, bool limited, Caretaker& caretaker);
  // The launch is over, and this is the QEMU: it is killed some seconds after cancelling, and at
  // once when a server is lost.
  void launched(pid_t qemu);
  // From now on nothing is killed.
  void stop();
  // The same, and QEMU, if it is known, is killed now.
  void stop_with_qemu();

 private:
  void run();
  bool server_lost() const;
  void kill_children() const REQUIRES(mutex_);

  const Cancel& cancel_;
  const std::vector<const nbd::ProxyNote*> notes_;
  const pid_t launcher_;  // the thread's number

  Mutex mutex_;
  ConditionVariable wake_;
  bool launching_ GUARDED_BY(mutex_) = false;
  bool limited_ GUARDED_BY(mutex_) = false;
  bool stopped_ GUARDED_BY(mutex_) = false;
  Caretaker* caretaker_ GUARDED_BY(mutex_) = nullptr;  // while it has not seen the socket
  // A descriptor of the process: another process may get its number later.
  int qemu_ GUARDED_BY(mutex_) = -1;
  std::string program_ GUARDED_BY(mutex_);

  std::thread thread_;
};

}  // namespace vc::appliance
