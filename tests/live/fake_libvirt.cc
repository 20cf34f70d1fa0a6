// Is loaded before libvirt's library in the command (LD_PRELOAD). Answers as another libvirt would.
//
//     VIRT_COMPACT_FAKE_VERSION=N  version of libvirt, as virConnectGetLibVersion has it
//     VIRT_COMPACT_FAKE_QEMU=N     version of QEMU, as virConnectGetVersion has it
//     VIRT_COMPACT_FAKE_JOB=1      the domain migrates
#include <dlfcn.h>
#include <libvirt/libvirt.h>

#include <cstdlib>

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

int tell_version(const char* setting, const char* function, virConnectPtr connection,
                 unsigned long* version) {
  if (const char* const fake = std::getenv(setting)) {
    *version = std::strtoul(fake, nullptr, 10);
    return 0;
  }
  const auto next =
      reinterpret_cast<int (*)(virConnectPtr, unsigned long*)>(::dlsym(RTLD_NEXT, function));
  return next(connection, version);
}

}  // namespace

// The names are those of libvirt.
// NOLINTBEGIN(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
EXPORTED int virConnectGetLibVersion(virConnectPtr connection, unsigned long* version) {
  return tell_version("VIRT_COMPACT_FAKE_VERSION", "virConnectGetLibVersion", connection, version);
}

EXPORTED int virConnectGetVersion(virConnectPtr connection, unsigned long* version) {
  return tell_version("VIRT_COMPACT_FAKE_QEMU", "virConnectGetVersion", connection, version);
}

EXPORTED int virDomainGetJobInfo(virDomainPtr domain, virDomainJobInfoPtr info) {
  const auto next = reinterpret_cast<int (*)(virDomainPtr, virDomainJobInfoPtr)>(
      ::dlsym(RTLD_NEXT, "virDomainGetJobInfo"));
  const int result = next(domain, info);
  if (std::getenv("VIRT_COMPACT_FAKE_JOB")) info->type = VIR_DOMAIN_JOB_UNBOUNDED;
  return result;
}
// NOLINTEND(readability-identifier-naming,readability-inconsistent-declaration-parameter-name)
