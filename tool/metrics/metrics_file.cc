#include "tool/metrics/metrics_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>

#include "base/printable.h"
#include "base/retry.h"

namespace vc::tool {

namespace {

// Facts of the format: https://prometheus.io/docs/instrumenting/exposition_formats/
std::string label_value(std::string_view text) {
  std::string escaped;
  // Control characters and ill-formed UTF-8 are \xNN after this.
  for (const char c : printable(text)) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

struct Metric {
  const char* name;
  const char* help;
  std::optional<std::string> (*value)(const MetricsEntry&);
};

std::optional<std::string> number(const std::optional<uint64_t>& value) {
  if (!value) return std::nullopt;
  return fmt::format("{}", *value);
}

constexpr Metric kMetrics[] = {
    {"before_bytes", "Bytes that the disk took on the host before the last run.",
     [](const MetricsEntry& it) { return number(it.before); }},
    {"after_bytes", "Bytes that the disk took on the host after the last run.",
     [](const MetricsEntry& it) { return number(it.after); }},
    {"duration_seconds", "Seconds that the last run took for the disk.",
     [](const MetricsEntry& it) { return std::optional(fmt::format("{:.3f}", it.seconds)); }},
    {"success", "1 if the last run was successful for the disk, 0 if it was not.",
     [](const MetricsEntry& it) { return std::optional<std::string>(it.success ? "1" : "0"); }},
    {"changed", "1 if the last run was successful and changed the disk, 0 otherwise.",
     [](const MetricsEntry& it) { return std::optional<std::string>(it.changed ? "1" : "0"); }},
    {"timestamp_seconds", "When the last run ended, in seconds since 1970.",
     [](const MetricsEntry& it) { return std::optional(fmt::format("{}", it.time)); }},
};

Result<void> write_whole(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t put = retry(::write, fd, text.data(), text.size());
    if (put < 0) return fail(Error::system(errno, path));
    text.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

}  // namespace

std::string metrics_text(std::string_view command, const std::vector<MetricsEntry>& entries) {
  std::map<std::string, const MetricsEntry*> series;
  for (const MetricsEntry& it : entries) series[label_value(it.disk)] = &it;
  std::string text;
  for (const Metric& metric : kMetrics) {
    const std::string name = fmt::format("virt_compact_last_run_{}", metric.name);
    std::string lines;
    for (const auto& [disk, entry] : series)
      if (const auto value = metric.value(*entry))
        lines += fmt::format("{}{{command=\"{}\",disk=\"{}\"}} {}\n", name, command, disk, *value);
    if (!lines.empty())
      text += fmt::format("# HELP {} {}\n# TYPE {} gauge\n{}", name, metric.help, name, lines);
  }
  return text;
}

Result<MetricsFile> MetricsFile::create(const std::string& path) {
  const std::string name = Directory::name_of(path);
  if (name.empty() || name == "." || name == "..")
    return fail(Error::invalid(path + ": is a folder: name a file in it"));
  ASSIGN_OR_RETURN(auto folder, Directory::open(Directory::parent_of(path)));
  if (const auto status = folder.status(name); status && !S_ISREG(status->st_mode))
    return fail(Error::invalid(path + ": exists, and is not a regular file"));
  remove_dead_files(folder, name);
  ASSIGN_OR_RETURN(auto hidden, create_hidden(folder, name));
  MetricsFile file(std::move(folder), name, std::move(hidden));
  // node_exporter is another user.
  if (retry(::fchmod, file.hidden_.file.get(), 0644) != 0) return fail(Error::system(errno, path));
  return file;
}

MetricsFile::MetricsFile(MetricsFile&& from) noexcept
    : folder_(std::move(from.folder_)),
      name_(std::move(from.name_)),
      hidden_{std::exchange(from.hidden_.name, {}), std::move(from.hidden_.file)} {}

MetricsFile::~MetricsFile() {
  if (!hidden_.name.empty()) (void)folder_.remove(hidden_.name);
}

Result<void> MetricsFile::publish(std::string_view text) {
  const std::string path = folder_.path_to(name_);
  RETURN_IF_ERROR(write_whole(hidden_.file.get(), text, path));
  // Without this, a crash of the host could leave an empty file with the name.
  if (retry(::fsync, hidden_.file.get()) != 0) return fail(Error::system(errno, path));
  RETURN_IF_ERROR(folder_.rename(hidden_.name, name_, 0));
  hidden_.name.clear();
  return {};
}

}  // namespace vc::tool
