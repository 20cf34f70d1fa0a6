#include "tool/nightly/disk_checks.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/retry.h"
#include "libvirt/running_domains.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using libvirt::DomainState;
using libvirt::KnownDomain;
using Why = NightlyEntry::Why;

namespace {

std::string date_text(int64_t time) {
  std::tm parts{};
  const auto seconds = static_cast<std::time_t>(time);
  ::localtime_r(&seconds, &parts);
  return fmt::format("{:%Y-%m-%d %H:%M}", parts);
}

bool uses(const KnownDomain& domain, const FileIdentity& file) {
  if (!domain.disks) return false;
  for (const libvirt::DiskChain& disk : *domain.disks) {
    for (const auto& it : disk.files)
      if (!it.path.empty())
        if (const auto found = FileIdentity::at(it.path); found && *found == file) return true;
    if (!disk.mirror) continue;
    if (const auto found = FileIdentity::at(disk.mirror->path); found && *found == file)
      return true;
  }
  return false;
}

const char* state_text(DomainState state) {
  switch (state) {
    case DomainState::kRuns:
      return "runs";
    case DomainState::kPaused:
      return "is paused";
    case DomainState::kSaved:
      return "has a saved state";
    case DomainState::kOff:
      break;
  }
  return "is shut off";
}

}  // namespace

Result<MaybeSkip> check_guest(const NightlyDisk& disk, bool& runs) {
  runs = false;
  if (!disk.known) return MaybeSkip();
  ASSIGN_OR_RETURN(const DomainState state, libvirt::state_of(*disk.known));
  switch (state) {
    case DomainState::kOff:
      return MaybeSkip();
    case DomainState::kSaved:
      return Skip{Why::kRuns,
                  "the domain has a saved state that relies on the content of the disk"};
    case DomainState::kPaused:
      return Skip{Why::kRuns, "the guest is paused"};
    case DomainState::kRuns:
      break;
  }
  if (!disk.settings->live)
    return Skip{Why::kRuns, "the guest runs (live = true optimizes its disks nevertheless)"};
  if (!disk.known->persistent)
    return Skip{Why::kRuns, "the domain is transient: no definition would know its new disk"};
  if (disk.format == qcow2::Format::kRaw)
    return Skip{Why::kRefused, "is a raw disk, and its guest runs"};
  runs = true;
  return MaybeSkip();
}

MaybeSkip check_due(const NightlySettings& settings, const LastResult* last, std::time_t now) {
  if (!last || last->success == 0 || settings.every_days == 0) return std::nullopt;
  const int64_t due = last->success + static_cast<int64_t>(settings.every_days) * 86400 - kHalfADay;
  // A success in the future comes from a clock that was wrong.
  if (now >= due || last->success > now) return std::nullopt;
  return Skip{Why::kNotDue, fmt::format("its last run was on {}, and {} day{} must pass",
                                        date_text(last->success), settings.every_days,
                                        settings.every_days == 1 ? "" : "s")};
}

MaybeSkip check_changed(const NightlySettings& settings, const LastResult* last,
                        const struct stat& status) {
  if (!last || !last->file || last->settings != settings.fingerprint() ||
      *last->file != FileState::of(status))
    return std::nullopt;
  return Skip{Why::kUnchanged,
              fmt::format("has not changed since its last run on {}", date_text(last->success))};
}

Result<MaybeSkip> check_header(const NightlyDisk& disk) {
  if (disk.format == qcow2::Format::kRaw) return MaybeSkip();
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(disk.path));
  ASSIGN_OR_RETURN(const auto header, qcow2::Header::read(*file, qcow2::Header::Purpose::kTell));
  if (!header.backing_file.empty())
    return Skip{Why::kOverlay,
                fmt::format("is an overlay of {}: virt-compact optimize -B keeps that, and without "
                            "-B, copies its data",
                            header.backing_file)};
  if (header.crypt_method != qcow2::CryptMethod::kNone)
    return Skip{Why::kRefused, "is encrypted: run virt-compact optimize with its key"};
  if (header.has_data_file())
    return Skip{Why::kRefused, "has an external data file, whose data optimize would take over"};
  return MaybeSkip();
}

Result<MaybeSkip> check_users(const std::string& path, const std::vector<KnownDomain>& domains,
                              const KnownDomain* own) {
  ASSIGN_OR_RETURN(const FileIdentity file, FileIdentity::at(path));
  for (const KnownDomain& it : domains)
    if (&it != own && it.state != DomainState::kOff && uses(it, file))
      return Skip{Why::kInUse,
                  fmt::format("domain '{}' uses it, and {}", it.name, state_text(it.state))};
  if (own) return MaybeSkip();
  ASSIGN_OR_RETURN(const libvirt::DiskUse use, libvirt::find_disk_use(path));
  if (use.domain.empty()) return MaybeSkip();
  return Skip{Why::kInUse, fmt::format("{} uses it, and {}", use.domain,
                                       use.saved ? "has a saved state" : "runs")};
}

Result<std::string> backup_of(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (!real) return fail(Error::system(errno, path));
  return std::string(real.get()) + ".bak";
}

}  // namespace vc::tool
