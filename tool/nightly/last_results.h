// What earlier runs did with each disk, in a file of the state folder.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/descriptor.h"
#include "storage/directory.h"

namespace vc::tool {

// Tells whether the content of a file may have changed.
struct FileState {
  uint64_t inode = 0;
  uint64_t length = 0;
  int64_t modified = 0;  // nanoseconds since 1970

  static FileState of(const struct stat& status);
  friend bool operator==(const FileState&, const FileState&) = default;
};

struct LastResult {
  std::string outcome;  // "optimized", "skipped", "failed", "stopped"
  std::string text;     // for a person
  int64_t time = 0;     // seconds since 1970
  int64_t success = 0;  // last time that the disk was optimized, or would have gained too little
  uint64_t before = 0;  // bytes on the disk
  uint64_t after = 0;
  std::optional<FileState> file;  // after the last success
  std::string settings;           // fingerprint at that time
  // The old disk that was kept; empty: none.
  std::string backup;
  FileState backup_file;
  int64_t backup_time = 0;
};

class LastResults {
 public:
  // Opens the folder, creates it if it is missing, and locks it. Returns an error if another run
  // has it locked, or if other users could change it. A file that cannot be read adds a line to
  // `remarks`, and counts as empty.
  static Result<LastResults> open(const std::string& folder, std::vector<std::string>& remarks);
  // Reads only, without a lock. A folder that is missing counts as empty.
  static Result<LastResults> peek(const std::string& folder, std::vector<std::string>& remarks);

  // Returns nullptr if there is none. `disk`: a path.
  const LastResult* find(const std::string& disk) const;
  // Replaces the result, and the file. Must not be called after peek().
  Result<void> set(const std::string& disk, LastResult result);

 private:
  LastResults() = default;
  Result<void> read(std::vector<std::string>& remarks);
  Result<void> write() const;

  std::optional<Directory> folder_;
  Descriptor lock_;
  std::map<std::string, LastResult> results_;
};

}  // namespace vc::tool
