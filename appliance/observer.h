// Receives the events of an appliance.
#pragma once

#include <cstdint>
#include <string>

namespace vc::appliance {

// All functions are called by the thread that does the work.
class Observer {
 public:
  virtual ~Observer() = default;

  // Called when a step begins. `what`: a line for the user, such as "Trimming /dev/sda1".
  virtual void step(const std::string& what) = 0;
  // Called for a condition that the user should know and that is not an error.
  virtual void warning(const std::string& what) = 0;
  // Called with the total progress, in bytes of filesystems. `done` never decreases.
  virtual void progress(uint64_t /*done*/, uint64_t /*total*/) {}
};

}  // namespace vc::appliance
