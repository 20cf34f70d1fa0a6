// Ends QEMU when the user has had enough: libguestfs has no call that breaks off another.
#pragma once

#include <sys/types.h>

#include <string>
#include <thread>

#include "appliance/caretaker.h"
#include "base/cancel.h"
#include "base/mutex.h"

namespace vc::appliance {

// A thread that looks at `cancel`.
class Watchdog {
 public:
  // To be made by the thread that is to call guestfs_launch ().
  explicit Watchdog(const Cancel& cancel);
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;
  ~Watchdog() { stop(); }

  // The launch begins: from now on a QEMU (whose program has this name, without folders) that the
  // thread starts is killed at once when cancelled, and if `limited` after half a minute, too.
  // `caretaker`, which outlives the thread, is shown libguestfs's socket.
  void launching(std::string program, bool limited, Caretaker& caretaker);
  // The launch is over, and this is the QEMU: it is killed some seconds after cancelling.
  void launched(pid_t qemu);
  // From now on nothing is killed.
  void stop();
  // The same, and QEMU, if it is known, is killed now.
  void stop_with_qemu();

 private:
  void run();
  void kill_children() const REQUIRES(mutex_);

  const Cancel& cancel_;
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
