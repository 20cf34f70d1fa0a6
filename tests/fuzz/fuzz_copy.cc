// libFuzzer target: takes any bytes as an image, and copies it. A successful copy must pass the
// engine's own check, and must equal the source. The first byte selects the options.
//
//     meson setup build-fuzz -Dfuzzers=true   (with CXX=clang++-19)
//     build-fuzz/tests/fuzz/fuzz_copy -rss_limit_mb=1024 CORPUS
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/progress.h"
#include "copy/copier.h"
#include "copy/source/open_source.h"
#include "inspect/comparison.h"
#include "qcow2/check/checker.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "storage/file_storage.h"

using namespace vc;

namespace {

// A few bytes can map terabytes.
constexpr uint64_t kMostSize = 16 << 20;
constexpr size_t kMostSnapshots = 8;

class Silent final : public Progress, public inspect::Comparison::Observer {
 public:
  void update(uint64_t /*done*/, uint64_t /*total*/) override {}
  void differ(const inspect::Comparison::Range& /*range*/) override {}
};

class Ignoring final : public qcow2::CheckObserver {
 public:
  void found(const qcow2::Finding& /*finding*/) override {}
};

// A file without a name, with these bytes.
class Nameless {
 public:
  Nameless(const uint8_t* data, size_t size) : fd_(::memfd_create("fuzz", MFD_CLOEXEC)) {
    if (fd_ < 0 || ::write(fd_, data, size) != static_cast<ssize_t>(size)) std::abort();
  }
  Nameless(const Nameless&) = delete;
  Nameless& operator=(const Nameless&) = delete;
  ~Nameless() { ::close(fd_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  const int fd_;
};

// Returns true if the image reads no other file, and is small enough to be read completely.
bool is_fit(const std::string& path) {
  const auto file = FileStorage::open_readonly(path);
  if (!file) return false;
  const auto header = qcow2::Header::read(**file);
  if (!header) return false;
  if (const auto snapshots = qcow2::read_snapshot_table(**file, *header)) {
    if (snapshots->size() > kMostSnapshots) return false;
    for (const qcow2::Snapshot& it : *snapshots)
      if (it.disk_size > kMostSize || it.vm_state_size > kMostSize) return false;
  }
  return header->size <= kMostSize && header->backing_file.empty() && !header->has_data_file();
}

void check_is_sound(const std::string& path) {
  const auto file = FileStorage::open_readonly(path);
  if (!file) __builtin_trap();
  qcow2::CheckOptions options;
  options.deep = true;
  options.threads = 1;
  auto checker = qcow2::Checker::open(**file, options);
  if (!checker) __builtin_trap();
  Ignoring observer;
  const auto sums = checker->run(observer);
  if (!sums || sums->corruptions + sums->check_errors + sums->leaks > 0) __builtin_trap();
}

// Returns true if a completed comparison finds both equal.
bool is_same(const std::string& a, const std::string& b) {
  const Cancel cancel;
  Stop stop(cancel);
  copy::SourceOptions options;
  options.format = qcow2::Format::kQcow2;
  options.name = a;
  auto first = inspect::ComparedDisk::open(options, stop);
  options.name = b;
  auto second = inspect::ComparedDisk::open(options, stop);
  if (!first || !second) return true;
  Silent silent;
  inspect::Comparison comparison(*first, *second, {.threads = 2}, silent, silent, stop);
  const auto summary = comparison.run();
  return !summary || summary->verdict == inspect::Comparison::Verdict::kSame;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::string folder = [] {
    std::string name = "/dev/shm/fuzz-copy-XXXXXX";
    if (!::mkdtemp(name.data())) std::abort();
    return name;
  }();
  if (size < 2) return 0;
  const Nameless image(data + 1, size - 1);
  if (!is_fit(image.path())) return 0;
  // Compares with the same file under another name, too: data that both disks have in one file is
  // not read.
  const Nameless twin(data + 1, size - 1);
  if (!is_same(image.path(), twin.path())) __builtin_trap();

  copy::CopyOptions options;
  options.source = image.path();
  options.source_format = qcow2::Format::kQcow2;
  options.destination = folder + "/copy";
  options.overwrite = true;
  options.threads = 2;
  if ((data[0] & 1) != 0) options.compression.type = qcow2::CompressionType::kZstd;
  if ((data[0] & 2) != 0) options.compression.type = qcow2::CompressionType::kDeflate;
  options.image.cluster_bits = 9 + (data[0] >> 2) % 8;
  if ((data[0] & 32) != 0) options.snapshots.emplace();
  if ((data[0] & 64) != 0) options.verify = true;
  const Cancel cancel;
  Silent silent;
  if (copy::copy(options, silent, cancel)) {
    check_is_sound(options.destination);
    if (!is_same(image.path(), options.destination)) __builtin_trap();
    std::filesystem::remove(options.destination);
  } else if (!std::filesystem::is_empty(folder)) {
    __builtin_trap();  // a file is left
  }
  return 0;
}
