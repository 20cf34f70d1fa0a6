#include "appliance/appliance.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace vc::appliance {

namespace {

// Returns true if the user's settings request emulation of the processor.
bool told_to_emulate(guestfs_h* handle) {
  char* const setting = guestfs_get_backend_setting(handle, "force_tcg");
  const bool told = setting && std::string_view(setting) == "1";
  std::free(setting);
  return told;
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

std::string program_name(const char* path) {
  const std::string_view name = path ? path : "";
  return std::string(name.substr(name.rfind('/') + 1));
}

// Drops the output of the appliance's kernel and of libguestfs.
void drop(guestfs_h* /*handle*/, void* /*opaque*/, uint64_t /*event*/, int /*event_handle*/,
          int /*flags*/, const char* /*text*/, size_t /*length*/, const uint64_t* /*array*/,
          size_t /*array_length*/) {}

std::vector<const nbd::ProxyNote*> notes_of(const std::vector<Appliance::Drive>& drives) {
  std::vector<const nbd::ProxyNote*> notes;
  for (const auto& it : drives)
    if (it.note) notes.push_back(it.note);
  return notes;
}

bool is_server_lost(const std::vector<Appliance::Drive>& drives) {
  return std::any_of(drives.begin(), drives.end(),
                     [](const auto& it) { return it.note && it.note->text(); });
}

// Returns true for an error that emulation would not avoid.
bool is_no_fault_of_kvm(const Error& error) {
  const std::string& message = error.message();
  return message.find("supermin") != std::string::npos ||
         message.find("cannot find any suitable") != std::string::npos;
}

}  // namespace

Result<void> Appliance::add(const Drive& drive, size_t index) const {
  const std::string server = "unix:" + drive.socket;
  const char* const servers[] = {server.c_str(), nullptr};
  const auto what = [&] { return fmt::format("disk {} of the appliance", index + 1); };
  RETURN_IF_ERROR(check(
      guestfs_add_drive_opts(handle(), "", GUESTFS_ADD_DRIVE_OPTS_READONLY, drive.read_only ? 1 : 0,
                             GUESTFS_ADD_DRIVE_OPTS_FORMAT, "raw", GUESTFS_ADD_DRIVE_OPTS_PROTOCOL,
                             "nbd", GUESTFS_ADD_DRIVE_OPTS_SERVER, servers,
                             GUESTFS_ADD_DRIVE_OPTS_BLOCKSIZE, static_cast<int>(drive.sector_size),
                             // Not for a read-only disk: libguestfs would return an error.
                             drive.read_only ? -1 : GUESTFS_ADD_DRIVE_OPTS_DISCARD, "enable", -1),
      what()));
  if (drive.read_only) return {};
  // If there is no space left, QEMU would pause the guest until a command resumes it.
  for (const char* const setting : {"detect-zeroes=unmap", "werror=report"})
    RETURN_IF_ERROR(check(
        guestfs_config(handle(), "-set", fmt::format("drive.hd{}.{}", index, setting).c_str()),
        what()));
  return {};
}

Result<std::unique_ptr<Appliance>> Appliance::try_launch(const std::vector<Drive>& drives,
                                                         const Cancel& cancel, bool emulate) {
  std::unique_ptr<guestfs_h, Close> handle(guestfs_create_flags(0));
  if (!handle) return fail(Error::system(errno, "libguestfs"));
  guestfs_h* const g = handle.get();
  guestfs_set_error_handler(g, nullptr, nullptr);
  std::unique_ptr<Appliance> appliance(
      new Appliance(cancel, emulate || told_to_emulate(g), notes_of(drives)));
  appliance->handle_ = std::move(handle);
  if (guestfs_get_verbose(g) == 0 && guestfs_get_trace(g) == 0)
    guestfs_set_event_callback(
        g, drop, GUESTFS_EVENT_APPLIANCE | GUESTFS_EVENT_LIBRARY | GUESTFS_EVENT_WARNING, 0,
        nullptr);
  const auto& self = *appliance;
  // The libvirt backend, if it is the default, runs QEMU as a user who cannot open our sockets.
  if (!std::getenv("LIBGUESTFS_BACKEND") && !std::getenv("LIBGUESTFS_ATTACH_METHOD"))
    RETURN_IF_ERROR(self.check(guestfs_set_backend(g, "direct"), "libguestfs"));
  if (emulate)
    RETURN_IF_ERROR(self.check(guestfs_set_backend_setting(g, "force_tcg", "1"), "libguestfs"));
  ASSIGN_OR_RETURN(appliance->cleanup_, CleanupProcess::start());
  RETURN_IF_ERROR(
      self.check(guestfs_set_tmpdir(g, appliance->cleanup_->folder().c_str()), "libguestfs"));
  RETURN_IF_ERROR(self.check(guestfs_set_pgroup(g, 1), "libguestfs"));
  // Sets the smallest possible discard granularity. A larger one would prevent trims in a partition
  // that begins at sector 63. QEMU requires whole sectors, and accepts one value for all disks.
  uint64_t granularity = 512;
  for (const Drive& it : drives) granularity = std::max(granularity, it.sector_size);
  RETURN_IF_ERROR(
      self.check(guestfs_config(g, "-global",
                                fmt::format("scsi-hd.discard_granularity={}", granularity).c_str()),
                 "libguestfs"));
  for (size_t i = 0; i < drives.size(); ++i) RETURN_IF_ERROR(self.add(drives[i], i));

  char* const program = guestfs_get_hv(g);
  appliance->watchdog_.launching(program_name(program), !appliance->emulated(),
                                 *appliance->cleanup_);
  std::free(program);
  const int launched = guestfs_launch(g);
  if (launched != 0) return fail(self.last_error("the libguestfs appliance does not start"));
  appliance->watchdog_.launched(guestfs_get_pid(g));
  if (cancel.requested()) return fail(Error::cancelled());
  return appliance;
}

Result<std::unique_ptr<Appliance>> Appliance::launch(const std::vector<Drive>& drives,
                                                     Observer& observer, const Cancel& cancel) {
  const bool kvm = ::access("/dev/kvm", R_OK | W_OK) == 0;
  if (!kvm)
    observer.warning(
        "/dev/kvm cannot be used: the appliance's processor is emulated, which takes longer");
  auto appliance = try_launch(drives, cancel, !kvm);
  const bool again = !appliance && kvm && !cancel.requested() && !is_server_lost(drives) &&
                     !is_no_fault_of_kvm(appliance.error()) &&
                     appliance.error().kind() != Error::Kind::kCancelled;
  if (again) {
    observer.warning(
        "KVM does not work: the appliance's processor is emulated, which takes longer (set "
        "LIBGUESTFS_BACKEND_SETTINGS=force_tcg to skip the attempt)");
    appliance = try_launch(drives, cancel, true);
  }
  if (appliance || appliance.error().kind() == Error::Kind::kCancelled) return appliance;
  return fail(Error::protocol(appliance.error().errnum(),
                              first_line(appliance.error().message()) +
                                  ": to find the cause, run libguestfs-test-tool, or "
                                  "set LIBGUESTFS_DEBUG=1 in the environment"));
}

std::string Appliance::library_version() {
  const std::unique_ptr<guestfs_h, Close> handle(
      guestfs_create_flags(GUESTFS_CREATE_NO_ENVIRONMENT));
  if (!handle) return "unknown";
  const std::unique_ptr<struct guestfs_version, void (*)(struct guestfs_version*)> version(
      guestfs_version(handle.get()), guestfs_free_version);
  if (!version) return "unknown";
  return fmt::format("{}.{}.{}{}", version->major, version->minor, version->release,
                     version->extra);
}

// Kills QEMU. Asked to end, QEMU would wait for its server, which may never answer.
Appliance::~Appliance() {
  watchdog_.stop_with_qemu();
}

Error Appliance::last_error(std::string_view what) const {
  if (cancel_.requested()) return Error::cancelled();
  const char* const text = guestfs_last_error(handle());
  const int errnum = guestfs_last_errno(handle());
  return Error::protocol(errnum == 0 ? EIO : errnum,
                         fmt::format("{}: {}", what, first_line(text ? text : "unknown error")));
}

Result<void> Appliance::cancelled() const {
  if (cancel_.requested()) return fail(Error::cancelled());
  return {};
}

Result<void> Appliance::check(int returned, std::string_view what) const {
  if (returned == -1) return fail(last_error(what));
  return {};
}

Result<std::string> Appliance::text(char* returned, std::string_view what) const {
  if (!returned) return fail(last_error(what));
  std::string text = returned;
  std::free(returned);
  return text;
}

Result<std::vector<std::string>> Appliance::list(char** returned, std::string_view what) const {
  if (!returned) return fail(last_error(what));
  std::vector<std::string> words;
  for (char** it = returned; *it; ++it) {
    words.emplace_back(*it);
    std::free(*it);
  }
  std::free(static_cast<void*>(returned));
  return words;
}

Result<void> Appliance::shut_down() {
  RETURN_IF_ERROR(check(guestfs_umount_all(handle()), "unmounting"));
  RETURN_IF_ERROR(check(guestfs_sync(handle()), "sync"));
  RETURN_IF_ERROR(check(guestfs_shutdown(handle()), "shutting down"));
  watchdog_.stop();
  return {};
}

}  // namespace vc::appliance
