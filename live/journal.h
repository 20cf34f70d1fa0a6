// The journal of a live run, beside the disk: what another run needs to finish or undo it.
//
// The file has one line for each step, a JSON object with the whole record. A line is appended and
// flushed before its step begins. An incomplete last line, which a loss of power may leave, is
// ignored. The journal names no file and no server: the files follow from the name of the disk, and
// the libvirt is the caller's. So a journal that another user wrote cannot direct a run elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace vc::live {

struct Record {
  bool qmp = false;    // a QEMU without libvirt: it has no domain and no target
  std::string uuid;    // of the domain
  std::string target;  // "vda"
  std::string backup;  // name of the backup in the folder of the disk
  bool keep_backup = true;
  uint64_t inode = 0;  // of the disk before the run
  // Owner of the disk while no domain uses it.
  uint32_t user = 0;
  uint32_t group = 0;
  std::string step;     // for the user
  bool paused = false;  // the run may have paused the guest
};

// Not thread-safe. The file is locked while the object lives.
class Journal {
 public:
  // Creates the file `name` in `folder`, which must not exist.
  static Result<Journal> create(const Directory& folder, const std::string& name, Record record);
  // Opens a journal. nullopt: there is none. Returns an error if another process uses it, if
  // another user may have written it, or if its content is not valid.
  static Result<std::optional<Journal>> open(const Directory& folder, const std::string& name);

  // A run that was killed while it created the journal leaves no record, and has changed nothing.
  const std::optional<Record>& record() const { return record_; }

  // Appends a record, and flushes it.
  Result<void> begin(const std::string& step);
  Result<void> set_paused(bool paused);
  // Removes the file: the run is over.
  Result<void> remove(const Directory& folder);

  static constexpr uint64_t kMostBytes = 64 << 10;

 private:
  Journal(Descriptor file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  static Result<Journal> take(Descriptor file, const Directory& folder, const std::string& name);
  Result<void> append();

  Descriptor file_;
  std::string name_;
  std::optional<Record> record_;
};

// Parses the text of a journal. Returns the last complete record; nullopt: there is none. Exposed
// for tests.
Result<std::optional<Record>> parse_journal(const std::string& text, const std::string& name);

}  // namespace vc::live
