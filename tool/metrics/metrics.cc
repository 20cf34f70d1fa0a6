#include "tool/metrics/metrics.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/retry.h"
#include "storage/file_size.h"
#include "tool/options/bracketed_commands.h"
#include "tool/text/shell_words.h"

namespace vc::tool {

namespace {

std::optional<uint64_t> blocks_of(const std::string& path) {
  struct stat status {};
  if (path.empty() || retry(::stat, path.c_str(), &status) != 0 || !S_ISREG(status.st_mode))
    return std::nullopt;
  return FileSize::of(status).blocks;
}

int64_t now() {
  return std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
}

std::string absolute(const std::string& path) {
  std::error_code error;
  const auto whole = std::filesystem::absolute(path, error);
  return error ? path : whole.lexically_normal().string();
}

// Returns the label of a disk. A relative path would differ from one caller to the next.
std::string label_of(const std::string& name, bool is_file) {
  if (const auto command = unfold_command(name)) return shell_words(*command);
  return is_file ? absolute(name) : name;
}

bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

// Returns true if the name of a destination can only be that of a file.
bool names_file(const std::string& name) {
  return name != "-" && name != "null:" && name.find("://") == std::string::npos;
}

}  // namespace

void Metrics::add_option(CLI::App& app) {
  add_parsed_option(
      app, "--metrics", "FILE", file_,
      [](const std::string& text) -> Result<std::string> {
        if (text.empty()) return fail(Error::invalid("its value is empty"));
        return text;
      },
      "write figures of the run to FILE, for Prometheus")
      ->group(kRareOptions);
}

std::vector<std::string> Metrics::folders() const {
  return file_.empty() ? std::vector<std::string>() : std::vector{Directory::parent_of(file_)};
}

Result<void> Metrics::open() {
  if (file_.empty()) return {};
  auto made = MetricsFile::create(file_);
  if (!made) return fail(std::move(made).error().with_context("--metrics"));
  output_.emplace(std::move(*made));
  return {};
}

void Metrics::add(const std::string& name) {
  add(name, name, name, exists(name));
}

void Metrics::add_new(const std::string& source, const std::string& result) {
  if (result == "-")
    add(source, source, "", names_file(source));
  else
    add(result, source, result, names_file(result));
}

void Metrics::add(const std::string& name, const std::string& before, const std::string& after,
                  bool is_file) {
  if (!output_) return;
  Disk disk;
  disk.name = name;
  disk.after = after;
  disk.entry.disk = label_of(name, is_file);
  disk.entry.before = blocks_of(before);
  disk.start = Clock::now();
  disks_.push_back(std::move(disk));
}

Metrics::Disk* Metrics::find(const std::string& name) {
  const auto found = std::find_if(disks_.begin(), disks_.end(),
                                  [&](const Disk& it) { return it.open && it.name == name; });
  return found == disks_.end() ? nullptr : &*found;
}

void Metrics::begin(const std::string& name) {
  if (Disk* const disk = find(name)) disk->start = Clock::now();
}

void Metrics::end(const std::string& name, bool success, bool changed) {
  if (Disk* const disk = find(name)) close(*disk, success, changed);
}

void Metrics::close(Disk& disk, bool success, bool changed) {
  MetricsEntry& entry = disk.entry;
  entry.after = blocks_of(disk.after);
  entry.seconds = std::chrono::duration<double>(Clock::now() - disk.start).count();
  entry.success = success;
  entry.changed = success && changed;
  entry.time = now();
  disk.open = false;
}

void Metrics::record(MetricsEntry entry) {
  Disk disk;
  disk.name = entry.disk;
  disk.entry = std::move(entry);
  disk.entry.disk = label_of(disk.name, exists(disk.name));
  disk.entry.time = now();
  disk.open = false;
  disks_.push_back(std::move(disk));
}

Result<void> Metrics::write(std::string_view command, bool success) {
  if (!output_) return {};
  std::vector<MetricsEntry> entries;
  for (Disk& disk : disks_) {
    if (disk.open) close(disk, success, changes_);
    entries.push_back(disk.entry);
  }
  return with_context(output_->publish(metrics_text(command, entries)), "--metrics");
}

}  // namespace vc::tool
