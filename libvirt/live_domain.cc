#include "libvirt/live_domain.h"

#include <fmt/format.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "base/xml_text.h"
#include "libvirt/running_domains.h"
#include "storage/directory.h"

namespace vc::libvirt {

namespace {

// The first versions in which a reused chain is opened late, and in which a copy may be transient.
// In the format of virConnectGetLibVersion.
constexpr unsigned long kOldestLibvirt = 8'000'000;
constexpr unsigned long kOldestQemu = 6'001'000;

std::string version_text(unsigned long version) {
  return fmt::format("{}.{}.{}", version / 1'000'000, version / 1000 % 1000, version % 1000);
}

}  // namespace

Result<void> LiveDomain::identify(const std::string& uri) {
  const std::unique_ptr<char, void (*)(void*)> real(virConnectGetURI(connection_.get()), std::free);
  uri_ = !uri.empty() || !real ? uri : real.get();
  std::array<char, VIR_UUID_STRING_BUFLEN> uuid{};
  const char* const name = virDomainGetName(domain_.get());
  name_ = fmt::format("domain '{}' of {}", name ? name : "?", real ? real.get() : uri);
  if (virDomainGetUUIDString(domain_.get(), uuid.data()) != 0) return fail(last_error(name_));
  uuid_ = uuid.data();
  return {};
}

Result<LiveDomain> LiveDomain::open_at(const std::string& uri, const std::string& name) {
  LiveDomain domain;
  ASSIGN_OR_RETURN(domain.connection_, connect(uri, true));
  ASSIGN_OR_RETURN(domain.domain_,
                   look_up(domain.connection_, name, fmt::format("domain '{}'", name)));
  RETURN_IF_ERROR(domain.identify(uri));
  return domain;
}

Result<LiveDomain> LiveDomain::open(const std::string& uri, const std::string& name) {
  auto domain = open_at(uri, name);
  if (domain || !uri.empty()) return domain;
  for (const std::string& other : running_libvirts())
    if (auto found = open_at(other, name)) return found;
  return domain;
}

Result<std::optional<std::pair<LiveDomain, std::string>>> LiveDomain::find_at(
    const std::string& uri, const std::string& path) {
  ASSIGN_OR_RETURN(const FileIdentity wanted, FileIdentity::at(path));
  ASSIGN_OR_RETURN(Connection connection, connect(uri, true));
  const DomainList domains(connection, DomainList::Which::kRunning);
  if (domains.count() < 0) return fail(last_error("libvirt: list the domains"));
  for (int i = 0; i < domains.count(); ++i) {
    LiveDomain domain;
    virDomainRef(domains[i]);
    domain.domain_.reset(domains[i]);
    virConnectRef(connection.get());
    domain.connection_.reset(connection.get());
    RETURN_IF_ERROR(domain.identify(uri));
    const auto disks = domain.disks(false);
    // The domain has ended meanwhile.
    if (!disks) continue;
    for (const DiskChain& disk : *disks) {
      const auto found = FileIdentity::at(disk.top());
      if (found && *found == wanted) return std::pair(std::move(domain), disk.target);
    }
  }
  return std::nullopt;
}

Result<std::optional<std::pair<LiveDomain, std::string>>> LiveDomain::find(
    const std::string& uri, const std::string& path) {
  if (!uri.empty()) return find_at(uri, path);
  for (const std::string& each : running_libvirts()) {
    ASSIGN_OR_RETURN(auto found, find_at(each, path));
    if (found) return found;
  }
  return std::nullopt;
}

Result<void> LiveDomain::check_versions() const {
  unsigned long libvirt = 0;
  unsigned long qemu = 0;
  if (virConnectGetLibVersion(connection_.get(), &libvirt) != 0 ||
      virConnectGetVersion(connection_.get(), &qemu) != 0)
    return fail(last_error(name_));
  if (libvirt >= kOldestLibvirt && qemu >= kOldestQemu) return {};
  return fail(Error::unsupported(fmt::format(
      "{}: has libvirt {} and QEMU {}, and --live needs libvirt {} and QEMU {}: shut the guest "
      "down, and run virt-compact optimize on its disk",
      name_, version_text(libvirt), version_text(qemu), version_text(kOldestLibvirt),
      version_text(kOldestQemu))));
}

Result<LiveDomain::Activity> LiveDomain::activity() const {
  int state = 0;
  int reason = 0;
  if (virDomainGetState(domain_.get(), &state, &reason, 0) != 0) return fail(last_error(name_));
  if (state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED) return Activity::kRuns;
  if (state == VIR_DOMAIN_PAUSED)
    return reason == VIR_DOMAIN_PAUSED_USER ? Activity::kPausedByUser : Activity::kPausedOtherwise;
  const int active = virDomainIsActive(domain_.get());
  if (active < 0) return fail(last_error(name_));
  return active == 0 ? Activity::kOff : Activity::kPausedOtherwise;
}

Result<bool> LiveDomain::is_persistent() const {
  const int persistent = virDomainIsPersistent(domain_.get());
  if (persistent < 0) return fail(last_error(name_));
  return persistent == 1;
}

bool LiveDomain::has_saved_state() const {
  return virDomainHasManagedSaveImage(domain_.get(), 0) == 1;
}

Result<bool> LiveDomain::has_job() const {
  virDomainJobInfo info{};
  if (virDomainGetJobInfo(domain_.get(), &info) != 0) return fail(last_error(name_));
  return info.type == VIR_DOMAIN_JOB_BOUNDED || info.type == VIR_DOMAIN_JOB_UNBOUNDED;
}

Result<int> LiveDomain::checkpoints() const {
  const int count = virDomainListAllCheckpoints(domain_.get(), nullptr, 0);
  if (count < 0) return fail(last_error(name_ + ": list the checkpoints"));
  return count;
}

Result<std::string> LiveDomain::definition(unsigned flags) const {
  const std::unique_ptr<char, void (*)(void*)> xml(virDomainGetXMLDesc(domain_.get(), flags),
                                                   std::free);
  if (!xml) return fail(last_error(name_));
  return std::string(xml.get());
}

Result<std::vector<DiskChain>> LiveDomain::disks(bool next) const {
  ASSIGN_OR_RETURN(const std::string text,
                   definition(next ? unsigned{VIR_DOMAIN_XML_INACTIVE} : 0));
  return read_disk_chains(text, name_);
}

Result<DiskChain> LiveDomain::disk(const std::string& target, bool next) const {
  ASSIGN_OR_RETURN(const auto all, disks(next));
  const DiskChain* const disk = find_target(all, target);
  if (!disk) return fail(Error::invalid(fmt::format("{}: has no disk '{}'", name_, target)));
  return *disk;
}

Result<std::string> LiveDomain::trim(uint64_t minimum) {
  if (virDomainFSTrim(domain_.get(), nullptr, minimum, 0) == 0) return std::string();
  const int code = virGetLastErrorCode();
  const Error error = last_error("fstrim");
  // The domain has no channel for an agent, no agent listens, or the agent cannot trim.
  if (code == VIR_ERR_AGENT_UNRESPONSIVE || code == VIR_ERR_ARGUMENT_UNSUPPORTED ||
      code == VIR_ERR_OPERATION_UNSUPPORTED || code == VIR_ERR_CONFIG_UNSUPPORTED ||
      code == VIR_ERR_INTERNAL_ERROR)
    return error.message();
  return fail(Error(error).with_context(name_));
}

Result<void> LiveDomain::suspend() {
  if (virDomainSuspend(domain_.get()) != 0) return fail(last_error(name_ + ": pause"));
  return {};
}

Result<void> LiveDomain::resume() {
  if (virDomainResume(domain_.get()) != 0) return fail(last_error(name_ + ": resume"));
  return {};
}

// Each disk that is not named would get an overlay of its own.
Result<void> LiveDomain::snapshot(
    const std::vector<std::pair<std::string, std::string>>& overlays) {
  ASSIGN_OR_RETURN(const auto all, disks(false));
  std::string xml = "<domainsnapshot><disks>";
  for (const DiskChain& disk : all) {
    const auto it = std::find_if(overlays.begin(), overlays.end(),
                                 [&](const auto& each) { return each.first == disk.target; });
    const std::string target = escape_xml(disk.target);
    if (it == overlays.end())
      xml += fmt::format("<disk name='{}' snapshot='no'/>", target);
    else
      xml += fmt::format(
          "<disk name='{}' snapshot='external' type='file'><driver type='qcow2'/><source "
          "file='{}'/></disk>",
          target, escape_xml(it->second));
  }
  xml += "</disks></domainsnapshot>";
  const virDomainSnapshotPtr snapshot = virDomainSnapshotCreateXML(
      domain_.get(), xml.c_str(),
      VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY | VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC |
          VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT | VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA);
  if (!snapshot) return fail(last_error(name_ + ": give the disks overlays"));
  virDomainSnapshotFree(snapshot);
  return {};
}

Result<void> LiveDomain::start_copy(const std::string& target, const std::string& path) {
  const std::string xml =
      fmt::format("<disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/></disk>",
                  escape_xml(path));
  if (virDomainBlockCopy(domain_.get(), target.c_str(), xml.c_str(), nullptr, 0,
                         VIR_DOMAIN_BLOCK_COPY_SHALLOW | VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                             VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB) != 0)
    return fail(last_error(fmt::format("{}: copy {} to {}", name_, target, path)));
  return {};
}

Result<void> LiveDomain::start_commit(const std::string& target) {
  if (virDomainBlockCommit(domain_.get(), target.c_str(), nullptr, nullptr, 0,
                           VIR_DOMAIN_BLOCK_COMMIT_ACTIVE | VIR_DOMAIN_BLOCK_COMMIT_SHALLOW) != 0)
    return fail(last_error(fmt::format("{}: commit the overlay of {}", name_, target)));
  return {};
}

Result<std::optional<LiveDomain::Job>> LiveDomain::job(const std::string& target) const {
  virDomainBlockJobInfo info{};
  const int found = virDomainGetBlockJobInfo(domain_.get(), target.c_str(), &info, 0);
  if (found < 0) return fail(last_error(fmt::format("{}: block job of {}", name_, target)));
  if (found == 0) return std::nullopt;
  return Job{info.cur, info.end};
}

Result<void> LiveDomain::pivot(const std::string& target) {
  if (virDomainBlockJobAbort(domain_.get(), target.c_str(), VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT) != 0)
    return fail(last_error(fmt::format("{}: end the block job of {}", name_, target)));
  return {};
}

Result<void> LiveDomain::abort(const std::string& target) {
  if (virDomainBlockJobAbort(domain_.get(), target.c_str(), 0) != 0)
    return fail(last_error(fmt::format("{}: end the block job of {}", name_, target)));
  return {};
}

Result<void> LiveDomain::set_source(const std::string& target, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text,
                   definition(VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE));
  ASSIGN_OR_RETURN(const std::string changed, with_source(text, name_, target, path));
  const DomainHandle defined(virDomainDefineXML(connection_.get(), changed.c_str()));
  if (!defined) return fail(last_error(name_ + ": change the definition"));
  return {};
}

Result<LiveDomain::Requests> LiveDomain::requests(const std::string& target) const {
  int count = 0;
  // The daemon refuses more than it has.
  std::vector<virTypedParameter> values;
  const auto ask = [&] {
    return virDomainBlockStatsFlags(domain_.get(), target.c_str(),
                                    values.empty() ? nullptr : values.data(), &count, 0) == 0;
  };
  bool known = ask();
  values.resize(static_cast<size_t>(std::max(count, 0)));
  known = known && !values.empty() && ask();
  if (!known) return fail(last_error(fmt::format("{}: statistics of {}", name_, target)));
  const auto value = [&](const char* name) -> uint64_t {
    long long it = 0;
    return virTypedParamsGetLLong(values.data(), count, name, &it) == 1 && it > 0
               ? static_cast<uint64_t>(it)
               : 0;
  };
  Requests requests{
      value(VIR_DOMAIN_BLOCK_STATS_WRITE_REQ), value(VIR_DOMAIN_BLOCK_STATS_WRITE_TOTAL_TIMES),
      value(VIR_DOMAIN_BLOCK_STATS_FLUSH_REQ), value(VIR_DOMAIN_BLOCK_STATS_FLUSH_TOTAL_TIMES)};
  virTypedParamsClear(values.data(), count);
  return requests;
}

}  // namespace vc::libvirt
