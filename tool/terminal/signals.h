// Ending on a signal without leaving anything half-made behind.
#pragma once

#include "base/cancel.h"

namespace tool {

// While it lives, SIGINT, SIGTERM and SIGHUP request `cancel` instead of ending the process; a
// second Ctrl-C does end it at once.  A signal that the process was started with ignored (nohup)
// stays ignored.  One at a time in a process.
class StopSignals {
 public:
  explicit StopSignals(copy::Cancel& cancel);
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();
};

// Requests the cancel of the StopSignals that lives, for any thread.  False: there is none.
bool cancel_command();

// The signal that asked to stop, also after the object is gone; 0: none.
int stop_signal();

// Ends the process by `signal`, so that whoever waits for it sees why.
[[noreturn]] void die_by(int signal);

// For the start of the process.  Writing to a closed pipe, or past the limit of a file's size
// (ulimit -f), is an error like others, not the end; and the three standard descriptors are open,
// so that no image opens as one of them and is written to by a message.
void prepare_process();

}  // namespace tool
