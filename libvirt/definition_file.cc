#include "libvirt/definition_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>

#include "base/retry.h"
#include "libvirt/xml_scanner.h"
#include "storage/descriptor.h"
#include "storage/output_file.h"

namespace vc::libvirt {

Result<std::string> read_definition(int fd, const std::string& name) {
  std::string text;
  std::array<char, 65536> piece{};
  while (true) {
    const ssize_t got = retry(::read, fd, piece.data(), piece.size());
    if (got < 0) return fail(Error::system(errno, name + ": read"));
    if (got == 0) return text;
    text.append(piece.data(), static_cast<size_t>(got));
    if (text.size() > XmlScanner::kMaxSize)
      return fail(
          Error::invalid(fmt::format("{}: has more than {} bytes, too many for a domain definition",
                                     name, XmlScanner::kMaxSize)));
  }
}

Result<std::string> read_definition(const std::string& path) {
  const Descriptor file(retry(::open, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!file || retry(::fstat, file.get(), &status) != 0) return fail(Error::system(errno, path));
  if (!S_ISREG(status.st_mode))
    return fail(Error::invalid(path + ": is not a regular file: use '-' to read standard input"));
  return read_definition(file.get(), path);
}

Result<void> replace_definition(const std::string& path, const std::string& before,
                                const std::string& after) {
  ASSIGN_OR_RETURN(const auto file, OutputFile::create(path, true));
  RETURN_IF_ERROR(file->write(HostOffset(0), std::as_bytes(std::span(after))));
  // Compares with the file that is replaced, even if its name changed.
  ASSIGN_OR_RETURN(const std::string now, file->replaced() < 0
                                              ? read_definition(path)
                                              : read_definition(file->replaced(), path));
  if (now != before)
    return fail(Error::invalid(
        path + ": another process has changed the file since it was read: nothing is written"));
  return file->commit();
}

bool is_libvirts_own(const std::string& path) {
  const std::unique_ptr<char, decltype(&std::free)> real(::realpath(path.c_str(), nullptr),
                                                         &std::free);
  if (!real) return false;
  const std::string_view name = real.get();
  return name.starts_with("/etc/libvirt/") || name.find("/libvirt/qemu/") != std::string_view::npos;
}

std::vector<std::string> direct_io_complaints(const std::vector<std::string>& images) {
  std::vector<std::string> complaints;
  for (const std::string& image : images) {
    if (!image.starts_with('/')) continue;
    struct stat status {};
    if (retry(::stat, image.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const Descriptor file(
        retry(::open, image.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_DIRECT));
    if (!file && errno == EINVAL)
      complaints.push_back(image +
                           ": its filesystem does not support O_DIRECT, so QEMU would not start "
                           "with cache='none': use --cache keep --io keep");
  }
  return complaints;
}

}  // namespace vc::libvirt
