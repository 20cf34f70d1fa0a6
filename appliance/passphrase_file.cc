#include "appliance/passphrase_file.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "base/retry.h"

namespace vc::appliance {

Result<PassphraseFile> PassphraseFile::make(const crypto::Secret& passphrase) {
  if (passphrase.text().find_first_of(std::string_view("\n\0", 2)) != std::string_view::npos)
    return fail(Error::unsupported(
        "a passphrase with a line break or a NUL cannot be given to the server of the appliance: "
        "use --metadata (virt-compact trim) or --trim=metadata (virt-compact optimize)"));
  Descriptor file(::memfd_create("passphrase", MFD_CLOEXEC));
  if (!file) return fail(Error::system(errno, "create a file in memory"));
  const auto bytes = passphrase.span();
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t written = retry(::write, file.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0) return fail(Error::system(errno, "write a file in memory"));
    done += static_cast<size_t>(written);
  }
  return PassphraseFile(std::move(file));
}

std::string PassphraseFile::path() const {
  return fmt::format("/proc/{}/fd/{}", ::getpid(), file_.get());
}

}  // namespace vc::appliance
