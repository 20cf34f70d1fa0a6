// Clean termination on a signal.
#pragma once

#include "base/cancel.h"

namespace vc::tool {

// While the object lives, SIGINT, SIGTERM and SIGHUP request `cancel` instead of ending the
// process. A second Ctrl-C ends the process at once. Signals that were ignored at the start of the
// process (nohup) stay ignored. At most one object may exist in a process.
class StopSignals {
 public:
  explicit StopSignals(Cancel& cancel);
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();
};

// Requests the cancel of the live StopSignals object. Thread-safe. Returns false if there is none.
bool cancel_command();

// Returns the signal that requested the stop, also after the object is destroyed. 0: none.
int stop_signal();

// Ends the process by `signal`, so that the parent process sees the cause.
[[noreturn]] void die_by(int signal);

// Prepares the process at its start. Writing to a closed pipe, or past the file size limit (ulimit
// -f), becomes an ordinary error instead of a fatal signal. The three standard descriptors are
// opened if closed, so that no image gets one of them and is overwritten by a message.
void prepare_process();

}  // namespace vc::tool
