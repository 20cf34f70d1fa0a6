#include "nbd/target.h"

namespace vc::nbd {

std::string NbdTarget::name() const {
  if (command.empty()) return uri;
  std::string name = "[ ";
  for (const std::string& word : command) name += word + ' ';
  return name + ']';
}

}  // namespace vc::nbd
