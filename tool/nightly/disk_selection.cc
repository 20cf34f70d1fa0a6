#include "tool/nightly/disk_selection.h"

#include <fmt/format.h>

#include <algorithm>

#include "tool/nightly/name_pattern.h"
#include "tool/nightly/path_pattern.h"

namespace vc::tool {

namespace {

using libvirt::DiskChain;
using libvirt::KnownDomain;

std::string refusal_of(const DiskChain& disk) {
  if (disk.type != "file" || disk.top().empty())
    return fmt::format("its type is {}: only images in files are optimized",
                       disk.type.empty() || disk.type == "file" ? "not known" : disk.type);
  const std::string& format = disk.files.front().format;
  if (format != "qcow2" && format != "raw")
    return fmt::format("its format is {}: only qcow2 and raw are optimized",
                       format.empty() ? "not in the definition of the domain" : format);
  if (disk.read_only) return "is read-only, so it does not grow";
  if (disk.shareable) return "is shared with other domains";
  if (disk.transient) return "is transient: its changes are lost when the guest stops";
  if (disk.encrypted) return "is encrypted: run virt-compact optimize with its key";
  if (disk.divided) return "is a part of a file, or has a data file";
  return "";
}

bool takes_target(const DomainRule& rule, const std::string& target) {
  return rule.targets.empty() ||
         std::any_of(rule.targets.begin(), rule.targets.end(),
                     [&](const std::string& it) { return matches_pattern(it, target); });
}

NightlyDisk disk_of(const KnownDomain& domain, const DomainRule& rule) {
  NightlyDisk it;
  it.domain = domain.name;
  it.known = &domain;
  it.settings = &rule.settings;
  return it;
}

void add_disks(const KnownDomain& domain, const DomainRule& rule, std::vector<NightlyDisk>& disks) {
  if (!domain.disks) {
    NightlyDisk& it = disks.emplace_back(disk_of(domain, rule));
    it.refusal = domain.disks.error().message();
    return;
  }
  for (const DiskChain& disk : *domain.disks) {
    if (disk.device != "disk" || !takes_target(rule, disk.target)) continue;
    NightlyDisk& it = disks.emplace_back(disk_of(domain, rule));
    it.target = disk.target;
    it.refusal = refusal_of(disk);
    if (disk.type == "file") it.path = disk.top();
    if (!disk.files.empty() && disk.files.front().format == "raw") it.format = qcow2::Format::kRaw;
  }
}

void add_paths(const std::string& path, const DiskRule& rule, std::vector<NightlyDisk>& disks) {
  std::vector<std::string> paths{path};
  std::string refusal;
  if (is_path_pattern(path)) paths = paths_matching(path);
  if (paths.empty()) refusal = "no file has such a name";
  if (paths.size() > kMostPaths)
    refusal = fmt::format("more than {} files have such names", kMostPaths);
  if (!refusal.empty()) paths = {path};
  for (std::string& each : paths) {
    NightlyDisk& it = disks.emplace_back();
    it.path = std::move(each);
    it.format = rule.format;
    it.settings = &rule.settings;
    it.refusal = refusal;
  }
}

}  // namespace

std::string NightlyDisk::name() const {
  std::string text = domain;
  for (const std::string& part : {target, path})
    if (!part.empty()) text += (text.empty() ? "" : ": ") + part;
  return text;
}

std::vector<NightlyDisk> select_disks(const Policy& policy,
                                      const std::vector<KnownDomain>& domains) {
  std::vector<NightlyDisk> disks;
  for (const KnownDomain& domain : domains) {
    const auto rule = std::find_if(policy.domains.begin(), policy.domains.end(),
                                   [&](const DomainRule& it) { return it.takes(domain.name); });
    if (rule != policy.domains.end()) add_disks(domain, *rule, disks);
  }
  for (const DiskRule& rule : policy.disks)
    for (const std::string& path : rule.paths) add_paths(path, rule, disks);
  return disks;
}

}  // namespace vc::tool
