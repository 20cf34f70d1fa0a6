// Figures of a run for Prometheus, in the text format that the textfile collector of its
// node_exporter reads.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tool/metrics/metrics_file.h"
#include "tool/options/arguments.h"

namespace vc::tool {

// The figures of one run: one entry for each disk. Without --metrics, does nothing.
class Metrics {
 public:
  // Adds --metrics FILE.
  void add_option(CLI::App& app);
  const std::string& file() const { return file_; }
  // Returns the folder in which files are created and replaced; none without --metrics.
  std::vector<std::string> folders() const;

  // Creates the new file, without its name, so that an error comes before any change.
  Result<void> open();

  // Adds a disk that is changed in place: a file, a server or a domain. Takes the size of the file
  // as it is now, and again when the disk ends. What is no regular file has no size.
  void add(const std::string& name);
  // Adds the disk `result` that is made from `source`; "-": a pipe, which is named by its source.
  void add_new(const std::string& source, const std::string& result);
  // Says that the run changes none of the disks whose entries it leaves open, if it succeeds.
  void unchanged() { changes_ = false; }
  // Starts the clock of a disk that was added, and ends its entry. A disk without these calls takes
  // the time and the success of the whole run.
  void begin(const std::string& name);
  void end(const std::string& name, bool success, bool changed);

  // Adds an entry that has ended, apart from its time.
  void record(MetricsEntry entry);

  // Ends the entries that are open, and gives the file its name. `success` of the run of `command`.
  Result<void> write(std::string_view command, bool success);

 private:
  using Clock = std::chrono::steady_clock;

  struct Disk {
    std::string name;  // as the caller knows it
    std::string after;
    MetricsEntry entry;
    Clock::time_point start;
    bool open = true;
  };
  void add(const std::string& name, const std::string& before, const std::string& after,
           bool is_file);
  Disk* find(const std::string& name);
  static void close(Disk& disk, bool success, bool changed);

  std::string file_;
  bool changes_ = true;
  std::vector<Disk> disks_;
  std::optional<MetricsFile> output_;
};

}  // namespace vc::tool
