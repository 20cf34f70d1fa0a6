#include "tests/copy/disks.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "base/zero_bytes.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::test {

std::vector<std::byte> lived_in_bytes(uint64_t seed, size_t size) {
  support::Random random(seed);
  std::vector<std::byte> bytes(size);
  for (size_t at = 0; at < size;) {
    const size_t length = std::min<size_t>(size - at, random.between(1, 200'000));
    const auto part = std::span(bytes).subspan(at, length);
    switch (random.below(4)) {
      case 0:
        random.fill(part);
        break;
      case 1:
        for (auto& byte : part) byte = static_cast<std::byte>('a' + random.below(4));
        break;
      case 2:
        // A few bytes of data among zeros.
        part[random.below(length)] = std::byte{1};
        break;
      default:
        break;
    }
    at += length;
  }
  return bytes;
}

void make_lived_in_raw(const std::string& path, uint64_t seed, size_t size) {
  const auto bytes = lived_in_bytes(seed, size);
  const int fd = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) throw std::runtime_error(path + ": cannot be made");
  bool good = ::ftruncate(fd, static_cast<off_t>(size)) == 0;
  for (size_t at = 0; at < size; at += 4096) {
    const auto block = std::span(bytes).subspan(at, std::min<size_t>(4096, size - at));
    if (is_zero(block)) continue;
    good = good && ::pwrite(fd, block.data(), block.size(), static_cast<off_t>(at)) ==
                       static_cast<ssize_t>(block.size());
  }
  ::close(fd);
  if (!good) throw std::runtime_error(path + ": cannot be written");
}

void Watcher::update(uint64_t done, uint64_t of) {
  fell = fell || done < last || done > of || (updates > 0 && of != total);
  last = done;
  total = of;
  ++updates;
  if (on_update) on_update(done);
}

copy::CopyOptions from_to(const std::string& source, const std::string& destination) {
  copy::CopyOptions options;
  options.source = source;
  options.destination = destination;
  return options;
}

Result<copy::CopySummary> run_copy(const copy::CopyOptions& options) {
  Watcher watcher;
  const Cancel cancel;
  auto summary = copy::copy(options, watcher, cancel);
  if (watcher.fell) throw std::runtime_error("the progress fell, or went beyond its total");
  if (summary && watcher.last != summary->virtual_size)
    throw std::runtime_error("the copy is done, and its progress is not");
  return summary;
}

std::string qemu_complaint(const std::string& image, const std::string& raw) {
  const auto check = support::run({"qemu-img", "check", "-q", "-f", "qcow2", image});
  if (!check.ok()) return "qemu-img check: " + check.describe();
  const auto compare =
      support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, raw});
  return compare.ok() ? "" : "qemu-img compare: " + compare.describe();
}

}  // namespace vc::test
