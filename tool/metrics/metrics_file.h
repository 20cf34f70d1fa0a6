// A file of metrics in Prometheus's text format, which appears complete or not at all.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "storage/hidden_file.h"

namespace vc::tool {

// What one run did with one disk.
struct MetricsEntry {
  std::string disk;
  std::optional<uint64_t> before;  // bytes that the disk takes on the host; nullopt: unknown
  std::optional<uint64_t> after;
  double seconds = 0;
  bool success = false;
  bool changed = false;
  int64_t time = 0;  // when the run ended, in seconds since 1970
};

// Returns the metrics as text: for each metric its HELP and TYPE, and a line for each disk. Of
// several entries for one disk, the last one counts, since a series must not repeat.
std::string metrics_text(std::string_view command, const std::vector<MetricsEntry>& entries);

class MetricsFile {
 public:
  // Creates a file in the folder of `path`, with a hidden name whose end is not ".prom".
  static Result<MetricsFile> create(const std::string& path);
  MetricsFile(MetricsFile&& from) noexcept;
  MetricsFile& operator=(MetricsFile&&) = delete;
  // Removes the file if it was not published.
  ~MetricsFile();

  // Writes the text, and replaces the file at the path. May be called once.
  Result<void> publish(std::string_view text);

 private:
  MetricsFile(Directory folder, std::string name, HiddenFile hidden)
      : folder_(std::move(folder)), name_(std::move(name)), hidden_(std::move(hidden)) {}

  Directory folder_;
  std::string name_;
  HiddenFile hidden_;  // its name is empty once it has another one
};

}  // namespace vc::tool
