// An observer that records all events.
#pragma once

#include <string>
#include <vector>

#include "appliance/observer.h"

namespace vc::test {

class Listening final : public appliance::Observer {
 public:
  void step(const std::string& what) override { steps.push_back(what); }
  void warning(const std::string& what) override { warnings.push_back(what); }

  std::vector<std::string> steps;
  std::vector<std::string> warnings;
};

}  // namespace vc::test
