// Shows file names in messages as the user gave them.
#pragma once

#include <string>

#include "appliance/observer.h"
#include "base/result.h"

namespace vc::optimize {

// The procedure uses absolute paths without symbolic links. If the user gave a relative path,
// messages show this path, and paths beside it relative to the same folder.
class ShownNames {
 public:
  // `given`: the user's path of the disk. If it cannot be resolved, nothing is replaced.
  explicit ShownNames(const std::string& given);

  // Returns `text` with the disk's folder replaced by the user's spelling, wherever a path in
  // `text` begins with it.
  std::string operator()(const std::string& text) const;
  Error operator()(const Error& error) const;

 private:
  std::string real_;   // "/srv/vm/"; empty: nothing to replace
  std::string given_;  // "vm/", or empty
};

// Passes everything on, with names as the user gave them.
class ShowingObserver final : public appliance::Observer {
 public:
  // Both must outlive the object.
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
