#include "tests/interop/snapshot_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "base/byte_order.h"
#include "qcow2/format/header.h"
#include "qcow2/format/snapshot_table.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/qcow2_layer.h"
#include "storage/file_storage.h"
#include "tests/interop/image_maker.h"
#include "tests/interop/qemu.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

using support::Random;
using support::run_ok;

namespace {

template <typename T>
T require(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message());
  return std::move(*result);
}

void require(const Result<void>& result) {
  if (!result) throw std::runtime_error(result.error().message());
}

class SnapshotMaker {
 public:
  SnapshotMaker(Random& random, std::string folder, uint64_t most)
      : random_(random), folder_(std::move(folder)), most_(most) {}

  SnapshotImage make();

 private:
  void run(const std::vector<std::string>& command) {
    made_.recipe += support::shell_line(command) + "\n";
    run_ok(command);
  }
  uint64_t draw_size() const { return random_.between(1, 40) * 96 * 1024; }
  void draw_shape();
  void create();
  void write_some(bool may_compress);
  void add_snapshot(uint64_t number);
  void change_table();

  Random& random_;
  const std::string folder_;
  const uint64_t most_;
  Shape shape_;
  uint64_t size_ = 0;
  SnapshotImage made_;
};

void SnapshotMaker::draw_shape() {
  shape_.compat = random_.chance(20) ? "0.10" : "1.1";
  shape_.cluster_bits = static_cast<unsigned>(random_.between(9, 18));
  if (random_.chance(5)) shape_.cluster_bits = 21;
  if (!shape_.v3()) return;
  shape_.refcount_bits = 2u << random_.below(6);
  // read_state() needs qemu-img amend for narrow refcounts. That takes minutes with small clusters,
  // and also with large ones: its time is quadratic in the entries of a refcount block.
  if (shape_.cluster_bits < 14 || shape_.cluster_bits > 15)
    shape_.refcount_bits = std::max(shape_.refcount_bits, 4u);
  shape_.extended_l2 = shape_.cluster_bits >= 14 && random_.chance(50);
  shape_.zstd = random_.chance(30);
}

void SnapshotMaker::create() {
  const std::string pattern = folder_ + "/pattern";
  std::vector<std::byte> bytes(50'000);
  random_.fill(bytes);
  for (size_t at = 1; at < bytes.size(); ++at)
    if (random_.chance(60)) bytes[at] = bytes[at - 1];
  support::write_file(pattern, bytes);

  std::vector<std::string> command{"qemu-img", "create",        "-q", "-f", "qcow2",
                                   "-o",       shape_.options()};
  size_ = draw_size();
  if (random_.chance(35)) {
    made_.has_backing = true;
    const std::string base = folder_ + "/base.qcow2";
    run({"qemu-img", "create", "-q", "-f", "qcow2", base, std::to_string(draw_size())});
    run({"qemu-io", "-c", "write -q -s " + pattern + " 0 96k", base});
    command.insert(command.end(), {"-b", "base.qcow2", "-F", "qcow2"});
  }
  made_.path = folder_ + "/disk.qcow2";
  command.push_back(made_.path);
  command.push_back(std::to_string(size_));
  run(command);
}

void SnapshotMaker::write_some(bool may_compress) {
  std::vector<std::string> command{"qemu-io", "-d", "unmap"};
  const uint64_t cluster = shape_.cluster_size();
  for (uint64_t i = random_.between(1, 8); i > 0; --i) {
    // A compressed write to an allocated cluster fails.
    if (may_compress && size_ >= cluster) {
      const uint64_t number = random_.below(size_ / cluster);
      command.insert(command.end(), {"-c", fmt::format("write -q -c -s {}/pattern {} {}", folder_,
                                                       number * cluster, cluster)});
      break;
    }
    const uint64_t at = random_.below(size_ / 512) * 512;
    const uint64_t length = std::min(size_ - at, random_.between(1, random_.between(1, 400)) * 512);
    const char* const verb = random_.chance(15)   ? "discard -q"
                             : random_.chance(15) ? "write -q -z"
                             : random_.chance(10) ? "write -q -P 0"
                                                  : nullptr;
    command.push_back("-c");
    command.push_back(verb ? fmt::format("{} {} {}", verb, at, length)
                           : fmt::format("write -q -s {}/pattern {} {}", folder_, at, length));
  }
  command.push_back(made_.path);
  run(command);
}

void SnapshotMaker::add_snapshot(uint64_t number) {
  const std::string name =
      random_.chance(20) ? fmt::format("état, {}", number) : fmt::format("s{}", number);
  if (random_.chance(35)) {
    made_.recipe += "savevm " + name + "\n";
    save_machine(made_.path, name);
  } else {
    run({"qemu-img", "snapshot", "-q", "-c", name, made_.path});
  }
}

// Sets fields that qemu-img does not, if they fit into the clusters of the table.
void SnapshotMaker::change_table() {
  const auto file = require(FileStorage::open_writable(made_.path));
  const auto header = require(qcow2::Header::read(*file));
  auto table = require(qcow2::read_snapshot_table(*file, header));
  if (table.empty()) return;
  const auto clusters = [&](uint64_t bytes) { return header.geometry().clusters_for(bytes); };
  const uint64_t before = clusters(qcow2::snapshot_table_bytes(table));
  auto& it = table[random_.below(table.size())];
  it.vm_clock_nanoseconds = random_.next();
  it.date_nanoseconds = static_cast<uint32_t>(random_.below(1'000'000'000));
  it.instruction_count = random_.below(uint64_t{1} << 60);
  it.unknown_extra.resize(random_.between(1, 40));
  random_.fill(it.unknown_extra);
  it.extra_bytes = static_cast<uint32_t>(24 + it.unknown_extra.size());
  const auto encoded = qcow2::encode_snapshot_table(table, header.version);
  if (clusters(encoded.size()) > before) return;
  require(file->write(header.snapshot_table, encoded));
  made_.recipe += "# extra data of snapshot " + it.name + "\n";
}

SnapshotImage SnapshotMaker::make() {
  draw_shape();
  create();
  // A refcount of 2 bits counts the disk and 2 snapshots.
  const uint64_t snapshots =
      std::min<uint64_t>(random_.below(most_ + 1), shape_.refcount_bits == 2 ? 2 : most_);
  const bool compresses = random_.chance(40) && shape_.refcount_bits >= 8;
  if (compresses) write_some(true);
  for (uint64_t i = 1; i <= snapshots; ++i) {
    write_some(false);
    add_snapshot(i);
    if (shape_.v3() && random_.chance(40)) {
      size_ = draw_size();
      run({"qemu-img", "resize", "-q", "--shrink", made_.path, std::to_string(size_)});
    }
  }
  if (random_.chance(70)) write_some(false);
  change_table();
  for (uint64_t i = 0; i <= snapshots; ++i)
    made_.states.push_back(read_state(made_.path, i, fmt::format("{}/truth{}", folder_, i)));
  made_.cluster_size = shape_.cluster_size();
  made_.is_v3 = shape_.v3();
  return made_;
}

bool is_narrow(const std::string& image) {
  const auto file = require(FileStorage::open_readonly(image));
  return require(qcow2::Header::read(*file)).refcount_order < 2;
}

// QEMU reads the VM state only into a machine.
std::string read_vm_state(const std::string& image, size_t number, const std::string& to) {
  const auto chain = require(qcow2::Chain::open(image, {}));
  const auto& opened = chain.image();
  const qcow2::Snapshot& snapshot = opened->snapshots()[number - 1];
  if (snapshot.vm_state_size == 0) return "";
  const qcow2::Geometry& geometry = opened->geometry();
  const uint64_t begin = geometry.l1_entries_for(snapshot.disk_size) * geometry.l2_reach();
  const qcow2::Disk disk({require(qcow2::Qcow2Layer::open(
      opened, snapshot.l1_table, snapshot.l1_entries, begin + snapshot.vm_state_size))});
  std::vector<std::byte> bytes(snapshot.vm_state_size);
  require(disk.read(GuestOffset(begin), bytes));
  support::write_file(to + ".vm", bytes);
  return to + ".vm";
}

}  // namespace

MadeState read_state(const std::string& image, size_t number, const std::string& to) {
  MadeState state;
  state.disk = to + ".raw";
  if (number == 0) {
    convert_to_raw(image, state.disk);
    return state;
  }
  {
    const auto chain = require(qcow2::Chain::open(image, {}));
    state.name = chain.image()->snapshots().at(number - 1).name;
  }
  const std::string applied = image + ".applied";
  run_ok({"cp", image, applied});
  // A refcount must have space for one more reference.
  if (is_narrow(applied)) run_ok({"qemu-img", "amend", "-q", "-o", "refcount_bits=64", applied});
  run_ok({"qemu-img", "snapshot", "-q", "-a", state.name, applied});
  convert_to_raw(applied, state.disk);
  std::filesystem::remove(applied);
  state.vm_state = read_vm_state(image, number, to);
  return state;
}

void save_machine(const std::string& image, const std::string& name) {
  support::RunOptions options;
  options.input = "savevm \"" + name + "\"\nquit\n";
  const auto outcome =
      support::run({"qemu-system-x86_64", "-accel", "tcg", "-S", "-display", "none", "-M", "pc",
                    "-m", "8", "-nodefaults", "-vga", "none", "-drive",
                    "if=virtio,format=qcow2,file=" + image, "-monitor", "stdio"},
                   options);
  const auto listed = run_ok({"qemu-img", "snapshot", "-l", image});
  if (!outcome.ok() || listed.out.find(name) == std::string::npos)
    throw std::runtime_error("savevm failed: " + outcome.describe());
}

SnapshotImage make_snapshot_image(Random& random, const std::string& folder, uint64_t most) {
  return SnapshotMaker(random, folder, most).make();
}

}  // namespace vc::interop
