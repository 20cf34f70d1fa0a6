#include "tests/live/written_disk.h"

#include <fmt/format.h>

#include <vector>

#include "tests/support/raw_file.h"

namespace vc::live_test {

namespace {

constexpr uint64_t kDisk = 24 * kMiB;

}  // namespace

WrittenDisks::WrittenDisks(const tune_test::LibvirtDaemon& daemon,
                           const TestDomain::Options& options)
    : domain_(daemon, options), reference_(daemon.folder() + "/reference-" + options.name) {
  for (unsigned i = 0; i < options.disks; ++i) make(i);
  domain_.define();
  domain_.start();
}

std::string WrittenDisks::reference(unsigned index) const {
  return fmt::format("{}{}", reference_, index);
}

// The clusters of the image are in disorder.
void WrittenDisks::make(unsigned index) {
  const std::string disk = domain_.disk(index);
  support::run_ok({"qemu-img", "create", "-q", "-f", "qcow2", disk, std::to_string(kDisk)});
  std::vector<std::string> command{"qemu-io", "-t", "unsafe", "-f", "qcow2"};
  for (unsigned i = 0; i < 16; ++i) {
    const unsigned at = (i * 7) % 16;
    command.insert(command.end(), {"-c", fmt::format("write -q -P {} {}M 700k", 10 + at, at)});
  }
  // Clusters that the guest has freed, and that stay in the file.
  command.insert(command.end(), {"-c", "write -q -P 200 18M 4M", "-c", "write -q -z 18M 4M"});
  command.push_back(disk);
  support::run_ok(command);
  support::run_ok({"qemu-img", "convert", "-O", "raw", disk, reference(index)});
}

void WrittenDisks::write(uint64_t at, uint64_t length, unsigned index) {
  const unsigned byte = 1 + writes_++ % 250;
  domain_.write(at, length, byte, index);
  const std::vector<std::byte> bytes(length, std::byte(byte));
  support::patch_file(reference(index), at, bytes);
}

void WrittenDisks::write_some(unsigned index) {
  write(1 * kMiB + writes_ * 4096, 3 * 4096, index);
  write(10 * kMiB, 64 << 10, index);
  write(20 * kMiB + writes_ * 512, 512, index);
}

std::string WrittenDisks::complaint(unsigned index) const {
  const std::string disk = domain_.disk(index);
  if (domain_.source(index, true) != disk)
    return "the definition names " + domain_.source(index, true);
  const auto check = support::run({"qemu-img", "check", "-f", "qcow2", disk});
  if (check.exit_code != 0 && check.exit_code != 3) return check.describe();
  const auto compare =
      support::run({"qemu-img", "compare", "-f", "qcow2", "-F", "raw", disk, reference(index)});
  return compare.ok() ? "" : compare.describe();
}

}  // namespace vc::live_test
