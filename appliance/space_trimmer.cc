#include "appliance/space_trimmer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

#include "appliance/device_view.h"
#include "appliance/drop_files.h"
#include "appliance/swap_header.h"
#include "appliance/zero_fill.h"
#include "guest/filesystem/ntfs/shadow_copies.h"

namespace vc::appliance {

namespace {

constexpr int64_t kReadOnly = 1;  // flag of statvfs

// Returns true for filesystems that are always read-only.
bool is_read_only_by_nature(const std::string& type) {
  return type == "iso9660" || type == "squashfs" || type == "erofs" || type == "cramfs";
}

bool is_encrypted_mapping(const std::string& device) {
  return device.starts_with("/dev/mapper/crypt");
}

}  // namespace

TrimmedSpace named(const Space& space) {
  TrimmedSpace result;
  result.device = space.device;
  result.type = space.type;
  result.label = space.label;
  result.uuid = space.uuid;
  result.size = space.size;
  return result;
}

Result<TrimmedSpace> SpaceTrimmer::trim(const Space& space,
                                        const std::function<void(uint64_t)>& filled) {
  const auto start = std::chrono::steady_clock::now();
  TrimmedSpace result = named(space);
  const auto done = handle(space, filled, result);
  if (!done && done.error().kind() == Error::Kind::kCancelled) return fail(done.error());
  if (!done) {
    result.outcome = Outcome::kFailed;
    result.why = done.error().message();
  }
  RETURN_IF_ERROR(it_.cancelled());
  result.elapsed = std::chrono::steady_clock::now() - start;
  return result;
}

Result<void> SpaceTrimmer::handle(const Space& space, const std::function<void(uint64_t)>& filled,
                                  TrimmedSpace& result) {
  switch (space.kind) {
    case Space::Kind::kFilesystem:
      return trim_filesystem(space, filled, result);
    case Space::Kind::kSwap:
    case Space::Kind::kSuspended:
      return discard_swap(space, result);
    case Space::Kind::kVolumeGroup:
      return discard_free_space(space, result);
    case Space::Kind::kOther:
      break;
  }
  return {};
}

Result<void> SpaceTrimmer::trim_filesystem(const Space& space,
                                           const std::function<void(uint64_t)>& filled,
                                           TrimmedSpace& result) {
  guestfs_h* const g = it_.handle();
  if (is_read_only_by_nature(space.type)) {
    result.why = "this type is read-only, so nothing can be freed in it";
    return {};
  }
  if (space.type == "ntfs" && !options_.drop.shadows) {
    ASSIGN_OR_RETURN(const bool shadows, has_shadow_copies(space));
    if (shadows) {
      result.why =
          "it has shadow copies (restore points), which would be lost: delete them in Windows "
          "(vssadmin delete shadows /all), or drop them with --drop shadows";
      result.advice = true;
      return {};
    }
  }
  auto mounted = it_.check(
      guestfs_mount_options(g, space.mount_options.c_str(), space.device.c_str(), "/"), "mounting");
  if (!mounted) {
    if (guestfs_filesystem_available(g, space.type.c_str()) != 0 || space.type == "ntfs")
      return mounted;
    result.why = "the appliance has no driver for it";
    return {};
  }
  auto trimmed = trim_mounted(space, filled, result);
  auto synced = it_.check(guestfs_sync(g), "sync");
  auto unmounted = it_.check(guestfs_umount_all(g), "unmounting");
  // The sync and the unmount report data that could not be written before.
  if (trimmed && !synced) trimmed = std::move(synced);
  if (trimmed && !unmounted) trimmed = std::move(unmounted);
  return trimmed;
}

// Windows keeps freed blocks that a shadow copy needs. The header of the volume shows whether there
// are copies: files are no proof, since a volume can store the copies of another one. Writes
// nothing.
Result<bool> SpaceTrimmer::has_shadow_copies(const Space& space) {
  const DeviceView view(it_, space.device, space.size);
  ASSIGN_OR_RETURN(const auto found, with_context(guest::find_shadow_copies(view), space.device));
  if (found == guest::ShadowCopies::kNeverHad) return has_shadow_copy_files(space);
  return found != guest::ShadowCopies::kNone;
}

Result<bool> SpaceTrimmer::has_shadow_copy_files(const Space& space) {
  guestfs_h* const g = it_.handle();
  // If it cannot be mounted, the later mount for writing reports the error.
  if (guestfs_mount_ro(g, space.device.c_str(), "/") != 0) return false;
  auto found = shadow_copies(it_, space);
  RETURN_IF_ERROR(it_.check(guestfs_umount_all(g), "unmounting"));
  if (!found) return fail(std::move(found).error());
  return !found->empty();
}

Result<void> SpaceTrimmer::trim_mounted(const Space& space,
                                        const std::function<void(uint64_t)>& filled,
                                        TrimmedSpace& result) {
  guestfs_h* const g = it_.handle();
  const auto numbers = [&]() -> Result<void> {
    struct guestfs_statvfs* const answer = guestfs_statvfs(g, "/");
    if (!answer) return fail(it_.last_error("statvfs"));
    const std::unique_ptr<struct guestfs_statvfs, decltype(&guestfs_free_statvfs)> it(
        answer, guestfs_free_statvfs);
    // A volume of hibernated Windows is silently mounted read-only, and fstrim would still trim it.
    if ((it->flag & kReadOnly) != 0)
      return fail(Error::protocol(
          EROFS, "it can be mounted only for reading: check the filesystem in the guest"));
    result.used = static_cast<uint64_t>(it->blocks - it->bfree) * static_cast<uint64_t>(it->frsize);
    return {};
  };
  RETURN_IF_ERROR(numbers());
  result.touched = true;
  RETURN_IF_ERROR(drop_files(it_, options_.drop, space, dropped_));

  // Trims twice, with a sync in between: some filesystems free space late.
  for (int round = 0; round < 2; ++round) {
    RETURN_IF_ERROR(it_.cancelled());
    if (guestfs_fstrim(g, "/", -1) == 0) {
      RETURN_IF_ERROR(it_.check(guestfs_sync(g), "sync"));
      result.outcome = Outcome::kTrimmed;
      continue;
    }
    const int errnum = guestfs_last_errno(g);
    if (round > 0 || (errnum != ENOTSUP && errnum != ENOTTY && errnum != ENOSYS))
      return fail(it_.last_error("fstrim"));
    if (is_encrypted_mapping(space.device)) {
      // Filling with zeros is useless: encrypted zeros are not zeros on the disk.
      result.why = "the encryption layer does not pass discards on";
      return {};
    }
    if (options_.dry_run) {
      result.outcome = Outcome::kZeroFilled;
      break;
    }
    RETURN_IF_ERROR(zero_fill(it_, filled));
    result.outcome = Outcome::kZeroFilled;
    break;
  }
  return numbers();
}

Result<void> SpaceTrimmer::discard_swap(const Space& space, TrimmedSpace& result) {
  guestfs_h* const g = it_.handle();
  const char* const device = space.device.c_str();
  size_t length = 0;
  const std::unique_ptr<char, decltype(&std::free)> start(
      guestfs_pread_device(g, device, SwapHeader::kKept, 0, &length), std::free);
  if (!start) return fail(it_.last_error("reading the header"));
  const std::string header(start.get(), length);
  if (!SwapHeader::is_in(header)) {
    result.why = "swap space of an unknown type";
    return {};
  }
  RETURN_IF_ERROR(it_.cancelled());
  result.touched = true;
  if (guestfs_blkdiscard(g, device) != 0) {
    if (guestfs_last_errno(g) != ENOTSUP) return fail(it_.last_error("blkdiscard"));
    result.why = "it cannot be discarded";
    return {};
  }
  const std::string kept = SwapHeader::without_session(header);
  for (size_t at = 0; at < kept.size();) {
    const int written = guestfs_pwrite_device(g, device, kept.data() + at, kept.size() - at,
                                              static_cast<int64_t>(at));
    if (written <= 0) return fail(it_.last_error("restoring the header of the swap space"));
    at += static_cast<size_t>(written);
  }
  RETURN_IF_ERROR(it_.check(guestfs_sync(g), "sync"));
  result.used = 0;
  result.outcome = Outcome::kDiscarded;
  return {};
}

Result<void> SpaceTrimmer::discard_free_space(const Space& space, TrimmedSpace& result) {
  guestfs_h* const g = it_.handle();
  const std::string volume = fmt::format("/dev/{}/{}", space.device, kFreeSpaceVolume);
  RETURN_IF_ERROR(it_.check(guestfs_lvcreate_free(g, kFreeSpaceVolume, space.device.c_str(), 100),
                            "creating a volume in the free space"));
  result.touched = true;
  auto discarded = it_.check(guestfs_blkdiscard(g, volume.c_str()), "blkdiscard");
  if (!discarded && guestfs_last_errno(g) == ENOTSUP) {
    result.why = "it cannot be discarded";
    discarded = {};
  } else if (discarded) {
    result.outcome = Outcome::kDiscarded;
    result.used = 0;
  }
  const auto removed =
      it_.check(guestfs_lvremove(g, volume.c_str()), "removing the volume in the free space");
  RETURN_IF_ERROR(it_.check(guestfs_sync(g), "sync"));
  return discarded ? removed : discarded;
}

}  // namespace vc::appliance
