#include "libvirt/tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

namespace vc::libvirt {

namespace {

// The replacement of a part of the text.
struct Edit {
  Stretch where;
  std::string text;
};

struct Wish {
  const char* attribute;
  const std::optional<std::string> Settings::*value;
};
constexpr std::array<Wish, 4> kWishes{{{"cache", &Settings::cache},
                                       {"io", &Settings::io},
                                       {"discard", &Settings::discard},
                                       {"detect_zeroes", &Settings::detect_zeroes}}};

struct Known {
  const char* attribute;
  std::vector<std::string> values;
};
const std::array<Known, 4>& known_values() {
  // From libvirt's description of the domain format, "Hard drives, floppy disks, CDROMs".
  static const std::array<Known, 4> kKnown{
      {{"cache", {"default", "none", "writethrough", "writeback", "directsync", "unsafe"}},
       {"io", {"threads", "native", "io_uring"}},
       {"discard", {"unmap", "ignore"}},
       {"detect_zeroes", {"off", "on", "unmap"}}}};
  return kKnown;
}

// QEMU refuses to start with such a pair: Linux's asynchronous I/O needs O_DIRECT.
bool is_impossible(const std::string& io, const std::string& cache) {
  return io == "native" && cache != "none" && cache != "directsync";
}

std::string impossible(const std::string& cache) {
  return fmt::format("io='native' needs cache='none' or 'directsync', not '{}'",
                     cache.empty() ? "default" : cache);
}

std::string value_after(const DiskDriver& driver, const char* attribute,
                        const std::optional<std::string>& wish) {
  if (wish) return *wish;
  const std::string* const old = driver.find(attribute);
  return old ? *old : "";
}

std::string why_skipped(const DomainDisk& disk, const Settings& settings) {
  if (disk.device != "disk") return fmt::format("is a {}", disk.device);
  if (disk.drivers.empty()) return "has no <driver>, so libvirt treats it as raw";
  if (disk.drivers.size() > 1) return "has several <driver> elements";
  const std::string* const format = disk.drivers.front().find("type");
  if (!format) return "names no format, so libvirt treats it as raw";
  if (*format != "qcow2") return fmt::format("is {}", *format);
  if (disk.read_only) return "is read-only";
  const auto& targets = settings.targets;
  if (!targets.empty() && std::find(targets.begin(), targets.end(), disk.target) == targets.end())
    return "was not selected";
  return "";
}

// Returns the controller of a SCSI disk. nullptr if no controller has that number.
const DomainController* scsi_controller(const Domain& domain, const DomainDisk& disk) {
  const std::string index = disk.controller.empty() ? "0" : disk.controller;
  for (const DomainController& it : domain.controllers)
    if (it.type == "scsi" && (it.index.empty() ? "0" : it.index) == index) return &it;
  return nullptr;
}

std::vector<std::string> advice_for(const Domain& domain, const DomainDisk& disk,
                                    const DiskReport& report, const Settings& settings) {
  std::vector<std::string> advice;
  const DiskDriver& driver = disk.drivers.front();
  const std::string discard = value_after(driver, "discard", settings.discard);
  if (value_after(driver, "detect_zeroes", settings.detect_zeroes) == "unmap" && discard != "unmap")
    advice.emplace_back("detect_zeroes='unmap' frees nothing without discard='unmap'");
  if (discard != "unmap") return advice;
  constexpr const char* kHow =
      "use virtio-scsi: a <controller type='scsi' model='virtio-scsi'/>, and on the disk <target "
      "dev='sda' bus='scsi'/> without its <address>; first install the driver in the guest";
  if (report.bus == "ide" || report.bus == "sata" || report.bus == "usb" || report.bus == "sd" ||
      report.bus == "fdc") {
    advice.push_back(
        fmt::format("bus='{}': not every guest trims such a disk; {}", report.bus, kHow));
  } else if (report.bus == "scsi") {
    const DomainController* const controller = scsi_controller(domain, disk);
    if (controller && controller->model != "virtio-scsi" &&
        controller->model != "virtio-transitional" &&
        controller->model != "virtio-non-transitional")
      advice.push_back(fmt::format("its SCSI controller is {}: {}",
                                   controller->model.empty()
                                       ? "chosen by libvirt, on x86 without virtio"
                                       : fmt::format("'{}'", controller->model),
                                   kHow));
  } else if (report.bus == "virtio") {
    advice.emplace_back(
        "bus='virtio' passes trims on only with QEMU 4.0 and Linux 5.0 in the guest, or later; use "
        "virtio-scsi with older versions");
  }
  return advice;
}

// Returns the edit that sets an attribute to `value`.
Edit edit_for(const DiskDriver& driver, std::string_view attribute, const std::string& value) {
  for (size_t i = 0; i < driver.names.size(); ++i)
    if (driver.names[i] == attribute) return {driver.tag.attributes[i].value, value};
  const auto& attributes = driver.tag.attributes;
  const size_t at = attributes.empty() ? driver.tag.name.end : attributes.back().value.end + 1;
  const char quote = attributes.empty() ? '\'' : attributes.back().quote;
  return {{at, at}, fmt::format(" {}={}{}{}", attribute, quote, value, quote)};
}

// Returns true if Windows uses the granularity of such a disk.
bool is_thin(const DiskReport& report) {
  return report.bus == "scsi" || report.bus == "virtio";
}

// Returns the granularity to set. nullopt: keep the current one.
std::optional<uint64_t> granularity_of(const Domain& domain, const DomainDisk& disk,
                                       const DiskReport& report, const Settings& settings) {
  if (settings.keep_granularity) return std::nullopt;
  if (settings.discard_granularity) return settings.discard_granularity;
  const bool set =
      !disk.blockio.empty() && disk.blockio.front().find("discard_granularity") != nullptr;
  const bool trims = value_after(disk.drivers.front(), "discard", settings.discard) == "unmap";
  if (!domain.is_windows() || !is_thin(report) || set || !trims) return std::nullopt;
  return kWindowsGranularity;
}

// Returns the white space between the start of the line and `at`. Empty if there is other text.
std::string indentation(std::string_view text, size_t at) {
  const size_t line = at == 0 ? std::string_view::npos : text.rfind('\n', at - 1);
  if (line == std::string_view::npos) return "";
  const std::string_view between = text.substr(line, at - line);
  return between.find_first_not_of(" \t\n") == std::string_view::npos ? std::string(between) : "";
}

Result<void> tune_granularity(std::string_view text, const DomainDisk& disk, uint64_t granularity,
                              DiskReport& report, std::vector<Edit>& edits) {
  const std::string value = fmt::format("{}", granularity);
  if (disk.blockio.empty()) {
    const size_t at = disk.drivers.front().tag.whole.begin;
    report.changes.push_back({"discard_granularity", "", value});
    edits.push_back(
        {{at, at},
         fmt::format("<blockio discard_granularity='{}'/>{}", value, indentation(text, at))});
    return {};
  }
  const DiskDriver& blockio = disk.blockio.front();
  const std::string* const old = blockio.find("discard_granularity");
  if (old && *old == value) return {};
  const std::string* const sector = blockio.find("logical_block_size");
  const uint64_t size = sector ? std::strtoull(sector->c_str(), nullptr, 10) : 0;
  if (size != 0 && granularity % size != 0)
    return fail(Error::invalid(
        fmt::format("disk {}: a granularity of {} is not a multiple of its logical_block_size, {}",
                    disk.target, value, *sector)));
  report.changes.push_back({"discard_granularity", old ? *old : "", value});
  edits.push_back(edit_for(blockio, "discard_granularity", value));
  return {};
}

std::string edited(std::string_view text, const std::vector<Edit>& edits) {
  // New attributes of one tag have the same position, and keep their order.
  std::multimap<size_t, const Edit*> in_order;
  for (const Edit& edit : edits) in_order.emplace(edit.where.begin, &edit);
  std::string result;
  size_t at = 0;
  for (const auto& [begin, edit] : in_order) {
    result += text.substr(at, begin - at);
    result += edit->text;
    at = edit->where.end;
  }
  return result += text.substr(at);
}

}  // namespace

Result<void> check(const Settings& settings) {
  for (const Wish& wish : kWishes) {
    const auto& value = settings.*wish.value;
    if (!value) continue;
    for (const Known& known : known_values()) {
      if (std::string_view(known.attribute) != wish.attribute) continue;
      if (std::find(known.values.begin(), known.values.end(), *value) == known.values.end())
        return fail(Error::invalid(
            fmt::format("{}='{}' is not a value that libvirt accepts", wish.attribute, *value)));
    }
  }
  if (settings.io && settings.cache && is_impossible(*settings.io, *settings.cache))
    return fail(Error::invalid(impossible(*settings.cache)));
  return {};
}

size_t Tuning::changes() const {
  size_t count = 0;
  for (const DiskReport& disk : disks) count += disk.changes.size();
  return count;
}

Result<Tuning> tune(std::string_view text, const std::string& name, const Settings& settings) {
  RETURN_IF_ERROR(check(settings));
  ASSIGN_OR_RETURN(const Domain domain, read_domain(text, name));
  for (const std::string& target : settings.targets)
    if (std::none_of(domain.disks.begin(), domain.disks.end(),
                     [&](const DomainDisk& it) { return it.target == target; }))
      return fail(
          Error::invalid(fmt::format("{}: there is no disk with target '{}'", name, target)));
  Tuning tuning;
  tuning.windows = domain.is_windows();
  std::vector<Edit> edits;
  for (const DomainDisk& disk : domain.disks) {
    DiskReport report;
    report.line = disk.line;
    report.target = disk.target;
    report.source = disk.source;
    report.bus = disk.bus;
    if (!disk.drivers.empty())
      if (const std::string* const format = disk.drivers.front().find("type"))
        report.format = *format;
    report.skipped = why_skipped(disk, settings);
    if (report.skipped.empty()) {
      const DiskDriver& driver = disk.drivers.front();
      const std::string io = value_after(driver, "io", settings.io);
      const std::string cache = value_after(driver, "cache", settings.cache);
      if (is_impossible(io, cache))
        return fail(Error::invalid(fmt::format("{}: line {}: disk {}: {}", name, disk.line,
                                               disk.target, impossible(cache))));
      for (const Wish& wish : kWishes) {
        const auto& value = settings.*wish.value;
        const std::string* const old = driver.find(wish.attribute);
        if (!value || (old && *old == *value)) continue;
        report.changes.push_back({wish.attribute, old ? *old : "", *value});
        edits.push_back(edit_for(driver, wish.attribute, *value));
      }
      if (const auto granularity = granularity_of(domain, disk, report, settings))
        RETURN_IF_ERROR(with_context(tune_granularity(text, disk, *granularity, report, edits),
                                     fmt::format("{}: line {}", name, disk.line)));
      report.advice = advice_for(domain, disk, report, settings);
    }
    tuning.disks.push_back(std::move(report));
  }
  tuning.text = edited(text, edits);
  return tuning;
}

}  // namespace vc::libvirt
