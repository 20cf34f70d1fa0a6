#include "appliance/survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>
#include <string_view>

namespace vc::appliance {

namespace {

// Exit codes of ntfs-3g.probe(8).
constexpr int kClean = 0;
constexpr int kHibernated = 14;
constexpr int kUnclean = 15;

// Returns the text, and frees it. nullptr becomes an empty string.
std::string take(char* text) {
  std::string result = text ? text : "";
  std::free(text);
  return result;
}

Space::Kind kind_of(const std::string& type) {
  if (type == "swap") return Space::Kind::kSwap;
  if (type == "swsuspend") return Space::Kind::kSuspended;
  if (type.empty() || type == "unknown" || is_encrypted(type) || type.ends_with("_member"))
    return Space::Kind::kOther;
  return Space::Kind::kFilesystem;
}

Result<void> list_filesystems(const Appliance& it, std::vector<Space>& spaces) {
  guestfs_h* const g = it.handle();
  ASSIGN_OR_RETURN(const auto list, it.list(guestfs_list_filesystems(g), "filesystems"));
  for (size_t i = 0; i + 1 < list.size(); i += 2) {
    // Skips subvolumes of btrfs, which are listed beside their device: they are one filesystem.
    if (list[i].starts_with("btrfsvol:")) continue;
    Space space;
    space.device = list[i];
    space.type = list[i + 1];
    if (space.device.ends_with(std::string("/") + kFreeSpaceVolume)) continue;
    const auto known = [&](const Space& other) {
      return other.device == space.device || (space.type == "btrfs" && !space.uuid.empty() &&
                                              other.type == space.type && other.uuid == space.uuid);
    };
    if (std::any_of(spaces.begin(), spaces.end(), known)) continue;
    const char* const device = space.device.c_str();
    space.kind = kind_of(space.type);
    if (space.type != "unknown") {
      space.label = take(guestfs_vfs_label(g, device));
      space.uuid = take(guestfs_vfs_uuid(g, device));
    }
    // Another device of a filesystem that is listed already.
    if (std::any_of(spaces.begin(), spaces.end(), known)) continue;
    const int64_t size = guestfs_blockdev_getsize64(g, device);
    RETURN_IF_ERROR(it.check(size < 0 ? -1 : 0, space.device));
    space.size = static_cast<uint64_t>(size);
    if (space.kind == Space::Kind::kOther) space.left_alone = "no known filesystem";
    spaces.push_back(std::move(space));
  }
  return {};
}

// Excludes volumes with classic LVM snapshots. A write to the origin (even a journal replay) copies
// data to the snapshot's space, and a full snapshot is lost. Thin snapshots (attribute V) share
// their space, and are trimmed like any other volume.
Result<void> find_lvm_snapshots(const Appliance& it, std::vector<Space>& spaces) {
  guestfs_h* const g = it.handle();
  const std::unique_ptr<guestfs_lvm_lv_list, decltype(&guestfs_free_lvm_lv_list)> volumes(
      guestfs_lvs_full(g), guestfs_free_lvm_lv_list);
  if (!volumes) return fail(it.last_error("logical volumes"));
  // UUIDs without dashes, as LVM reports them.
  std::set<std::string> involved;
  for (uint32_t i = 0; i < volumes->len; ++i) {
    const guestfs_lvm_lv& volume = volumes->val[i];
    if (volume.lv_attr && std::string_view("oOsS").find(volume.lv_attr[0]) != std::string::npos)
      involved.insert(std::string(volume.lv_uuid, sizeof volume.lv_uuid));
  }
  if (involved.empty()) return {};
  for (Space& space : spaces) {
    const char* const device = space.device.c_str();
    const int is_volume = guestfs_is_lv(g, device);
    RETURN_IF_ERROR(it.check(is_volume, space.device));
    if (is_volume == 0) {
      // The volume below an opened encrypted device is unknown, and may be one of these. A btrfs
      // may have other devices.
      space.must_stay = space.type == "btrfs" || space.device.starts_with("/dev/mapper/") ||
                        space.device.starts_with("/dev/dm-");
    } else {
      std::string uuid = take(guestfs_lvuuid(g, device));
      uuid.erase(std::remove(uuid.begin(), uuid.end(), '-'), uuid.end());
      space.must_stay = uuid.empty() || involved.count(uuid) != 0;
    }
    if (space.must_stay)
      space.left_alone =
          "it has, is, or may depend on an LVM snapshot, which would be lost: remove the snapshot "
          "first";
  }
  return {};
}

// Adds encrypted devices, which are not in the list of filesystems.
Result<void> list_encrypted(const Appliance& it, const std::vector<std::string>& opened,
                            std::vector<Space>& spaces) {
  guestfs_h* const g = it.handle();
  ASSIGN_OR_RETURN(const auto devices, encrypted_devices(it));
  for (const Encrypted& encrypted : devices) {
    if (std::find(opened.begin(), opened.end(), encrypted.device) != opened.end()) continue;
    Space space;
    space.device = encrypted.device;
    space.type = encrypted.type;
    space.uuid = encrypted.uuid;
    const int64_t size = guestfs_blockdev_getsize64(g, space.device.c_str());
    RETURN_IF_ERROR(it.check(size < 0 ? -1 : 0, space.device));
    space.size = static_cast<uint64_t>(size);
    space.left_alone = "encrypted: open it with --key";
    spaces.push_back(std::move(space));
  }
  return {};
}

Result<void> list_volume_groups(const Appliance& it, std::vector<Space>& spaces) {
  guestfs_h* const g = it.handle();
  // Removes what a killed run left.
  ASSIGN_OR_RETURN(const auto volumes, it.list(guestfs_lvs(g), "logical volumes"));
  for (const std::string& volume : volumes)
    if (volume.ends_with(std::string("/") + kFreeSpaceVolume))
      RETURN_IF_ERROR(it.check(guestfs_lvremove(g, volume.c_str()), volume));
  guestfs_lvm_vg_list* const groups = guestfs_vgs_full(g);
  if (!groups) return fail(it.last_error("volume groups"));
  for (uint32_t i = 0; i < groups->len; ++i) {
    const guestfs_lvm_vg& group = groups->val[i];
    if (group.vg_free == 0) continue;
    Space space;
    space.kind = Space::Kind::kVolumeGroup;
    space.device = group.vg_name;
    space.type = "free space";
    space.uuid = std::string(group.vg_uuid, sizeof group.vg_uuid);
    space.size = group.vg_free;
    const std::string attributes = group.vg_attr ? group.vg_attr : "";
    if (attributes.size() > 3 && attributes[3] == 'p')
      space.left_alone = "a disk of the volume group is missing";
    else if (attributes.starts_with("r"))
      space.left_alone = "the volume group is read-only";
    spaces.push_back(std::move(space));
  }
  guestfs_free_lvm_vg_list(groups);
  return {};
}

bool means(const std::string& name, const Space& space) {
  if (name.starts_with("UUID=")) return !space.uuid.empty() && name.substr(5) == space.uuid;
  if (name.starts_with("LABEL=")) return !space.label.empty() && name.substr(6) == space.label;
  if (name == space.device || "/dev/" + name == space.device) return true;
  // Name of a subvolume in libguestfs's inspection.
  return name.starts_with("btrfsvol:" + space.device);
}

Result<void> check_names(const std::vector<std::string>& names, const std::vector<Space>& spaces) {
  for (const std::string& name : names) {
    if (std::any_of(spaces.begin(), spaces.end(), [&](const Space& it) { return means(name, it); }))
      continue;
    std::string known;
    for (const Space& space : spaces) known += (known.empty() ? "" : ", ") + space.device;
    return fail(Error::invalid(fmt::format("'{}': there is no such filesystem: there {} {}", name,
                                           spaces.size() == 1 ? "is" : "are",
                                           spaces.empty() ? "none" : known)));
  }
  return {};
}

Result<void> check_ntfs(const Appliance& it, const TrimOptions::Drop& drop, Space& space) {
  const bool chosen = space.left_alone.empty();
  const int probed = guestfs_ntfs_3g_probe(it.handle(), 1, space.device.c_str());
  if (chosen) RETURN_IF_ERROR(it.check(probed, space.device));
  if (probed == kClean || (!chosen && probed != kHibernated)) return {};
  if (probed == kHibernated) {
    if (drop.hiberfile && chosen) {
      space.mount_options = "remove_hiberfile";
      return {};
    }
    return fail(hibernated(space.device));
  }
  if (probed == kUnclean)
    return fail(Error::unsupported(
        space.device +
        ": Windows was not shut down cleanly: boot it, let it check the disk, and shut it down "
        "with 'shutdown /s /t 0'; or exclude this filesystem with --ignore " +
        space.device));
  return fail(Error::unsupported(
      fmt::format("{}: this NTFS filesystem cannot be written (ntfs-3g.probe returned {}): run "
                  "chkdsk in Windows, or exclude the filesystem with --ignore {}",
                  space.device, probed, space.device)));
}

}  // namespace

Result<std::vector<Space>> survey(const Appliance& appliance,
                                  const std::vector<std::string>& opened) {
  std::vector<Space> spaces;
  RETURN_IF_ERROR(list_filesystems(appliance, spaces));
  RETURN_IF_ERROR(find_lvm_snapshots(appliance, spaces));
  RETURN_IF_ERROR(list_encrypted(appliance, opened, spaces));
  RETURN_IF_ERROR(list_volume_groups(appliance, spaces));
  return spaces;
}

Result<void> choose(const TrimOptions& options, std::vector<Space>& spaces) {
  RETURN_IF_ERROR(check_names(options.filesystems, spaces));
  RETURN_IF_ERROR(check_names(options.ignore, spaces));
  const auto among = [](const std::vector<std::string>& names, const Space& space) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& it) { return means(it, space); });
  };
  for (Space& space : spaces) {
    if (!space.left_alone.empty()) continue;
    space.excluded = among(options.ignore, space) ||
                     (!options.filesystems.empty() && !among(options.filesystems, space));
    if (space.excluded) {
      space.left_alone = "excluded by --filesystems or --ignore";
    } else if (std::find(options.known.begin(), options.known.end(), space.device) !=
               options.known.end()) {
      space.excluded = true;
      space.left_alone = "its free space is known from its metadata";
    }
  }
  return {};
}

Error hibernated(const std::string& device) {
  return Error::unsupported(
      device +
      ": Windows is hibernated, or was shut down with fast startup: when it resumes, it would rely "
      "on the old content of this disk: boot it and shut it down with 'shutdown /s /t 0', or "
      "discard its saved session with --drop hiberfile");
}

Error suspended(const std::string& device) {
  return Error::unsupported(
      device +
      ": the guest is suspended to disk: when it resumes, it would rely on the old content of its "
      "disks: boot it and shut it down, or discard its saved session with --drop swap");
}

Result<void> check_shut_down(const Appliance& appliance, const TrimOptions::Drop& drop,
                             std::vector<Space>& spaces) {
  const bool windows_has_others = std::any_of(spaces.begin(), spaces.end(), [](const Space& space) {
    return space.left_alone.empty() && (space.type == "ntfs" || space.type == "vfat" ||
                                        space.type == "exfat" || space.type == "msdos");
  });
  for (Space& space : spaces) {
    if (space.kind == Space::Kind::kSuspended) {
      // Even for a space that is not chosen: the session may use the chosen ones.
      if (drop.swap && !space.must_stay) {
        space.left_alone.clear();
        continue;
      }
      return fail(suspended(space.device));
    }
    // Even for a volume that is not chosen: Windows's session uses all volumes that Windows mounts.
    if (space.type == "ntfs" && (space.left_alone.empty() || windows_has_others))
      RETURN_IF_ERROR(check_ntfs(appliance, drop, space));
  }
  return {};
}

}  // namespace vc::appliance
