// Is loaded before the C library in the command (LD_PRELOAD). Stops the process (SIGSTOP) once, at
// a moment of a live run, so that a test can kill it or another process there.
//
//     VIRT_COMPACT_STOP_AT=STEP      when the journal has the record of this step, before the step
//     VIRT_COMPACT_STOP_IN=FUNCTION  before this function of libvirt is called, or this command is
//                                    sent to QEMU: the guest is paused for it
#include <dlfcn.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

// The process that guards the guest does not stop.
const pid_t kProcess = ::getpid();
bool reached = false;
bool stopped = false;

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

void stop() {
  if (stopped || ::getpid() != kProcess) return;
  stopped = true;
  ::raise(SIGSTOP);
}

void enter(const char* function) {
  const char* const wanted = std::getenv("VIRT_COMPACT_STOP_IN");
  if (wanted && std::strcmp(wanted, function) == 0) stop();
}

}  // namespace

// The names are those of the C library and of libvirt.
// NOLINTBEGIN(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
EXPORTED ssize_t write(int file, const void* bytes, size_t length) {
  const ssize_t put = next<ssize_t (*)(int, const void*, size_t)>("write")(file, bytes, length);
  const char* const step = std::getenv("VIRT_COMPACT_STOP_AT");
  if (step && put > 0) {
    const std::string record = std::string("\"step\":\"") + step + "\"";
    if (::memmem(bytes, static_cast<size_t>(put), record.data(), record.size())) reached = true;
  }
  return put;
}

EXPORTED int fsync(int file) {
  const int result = next<int (*)(int)>("fsync")(file);
  if (reached) stop();
  return result;
}

EXPORTED ssize_t send(int socket, const void* bytes, size_t length, int flags) {
  if (const char* const command = std::getenv("VIRT_COMPACT_STOP_IN")) {
    const std::string word = std::string("\"execute\":\"") + command + "\"";
    if (::memmem(bytes, length, word.data(), word.size())) stop();
  }
  return next<ssize_t (*)(int, const void*, size_t, int)>("send")(socket, bytes, length, flags);
}

EXPORTED void* virDomainSnapshotCreateXML(void* domain, const char* xml, unsigned flags) {
  enter("virDomainSnapshotCreateXML");
  return next<void* (*)(void*, const char*, unsigned)>("virDomainSnapshotCreateXML")(domain, xml,
                                                                                     flags);
}

EXPORTED int virDomainBlockJobAbort(void* domain, const char* disk, unsigned flags) {
  enter("virDomainBlockJobAbort");
  return next<int (*)(void*, const char*, unsigned)>("virDomainBlockJobAbort")(domain, disk, flags);
}
// NOLINTEND(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
