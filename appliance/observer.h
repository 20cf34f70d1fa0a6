// Who is told what happens in an appliance.
#pragma once

#include <cstdint>
#include <string>

namespace vc::appliance {

// Called by the thread that does the work.
class Observer {
 public:
  virtual ~Observer() = default;

  // A step begins: a line for a person, "Trimming /dev/sda1".
  virtual void step(const std::string& what) = 0;
  // Something that the user should know, and that is no error.
  virtual void warning(const std::string& what) = 0;
  // How far all of it is, bytes of filesystems; `done` never falls.
  virtual void progress(uint64_t /*done*/, uint64_t /*total*/) {}
};

}  // namespace vc::appliance
