// Names of files in messages, as the user gave them.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "base/result.h"

namespace vc::optimize {

// The work is done with absolute names without symbolic links.  A user who gave a relative name
// reads that one, and names beside it relative to the same folder.
class ShownNames {
 public:
  // `given`: the name of a disk.  If it cannot be resolved, nothing is replaced.
  explicit ShownNames(const std::string& given);

  // `text` with the disk's folder as the user called it, wherever a name in it begins.
  std::string operator()(const std::string& text) const;
  Error operator()(const Error& error) const;

 private:
  std::string real_;   // "/srv/vm/"; empty: nothing to replace
  std::string given_;  // "vm/", or nothing at all
};

// Passes on what it is told, with names as the user gave them.
class ShowingObserver final : public appliance::Observer {
 public:
  // Both outlive it.
  ShowingObserver(appliance::Observer& observer, const ShownNames& shown)
      : observer_(observer), shown_(shown) {}

  void step(const std::string& what) override { observer_.step(shown_(what)); }
  void warning(const std::string& what) override { observer_.warning(shown_(what)); }
  void progress(uint64_t done, uint64_t total) override { observer_.progress(done, total); }

 private:
  appliance::Observer& observer_;
  const ShownNames& shown_;
};

}  // namespace vc::optimize
