#include "nbd/proxy_note.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "base/retry.h"

namespace vc::nbd {

namespace {

// The longest note, bytes, with the end of line, without which it is not complete.
constexpr size_t kLongest = 4096;

}  // namespace

Result<ProxyNote> ProxyNote::make() {
  Descriptor file(::memfd_create("virt-compact-proxy", MFD_CLOEXEC));
  if (!file) return fail(Error::system(errno, "memfd_create"));
  return ProxyNote(std::move(file));
}

std::string ProxyNote::path() const {
  return fmt::format("/proc/{}/fd/{}", ::getpid(), file_.get());
}

std::optional<std::string> ProxyNote::text() const {
  std::array<char, kLongest> bytes{};
  const ssize_t got = retry(::pread, file_.get(), bytes.data(), bytes.size(), off_t{0});
  if (got <= 0 || bytes[static_cast<size_t>(got) - 1] != '\n') return std::nullopt;
  return std::string(bytes.data(), static_cast<size_t>(got) - 1);
}

Result<void> ProxyNote::write(const std::string& path, const std::string& text) {
  const Descriptor file(retry(::open, path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) return fail(Error::system(errno, path));
  const std::string line = text.substr(0, kLongest - 1) + "\n";
  if (retry(::write, file.get(), line.data(), line.size()) < 0)
    return fail(Error::system(errno, path));
  return {};
}

}  // namespace vc::nbd
