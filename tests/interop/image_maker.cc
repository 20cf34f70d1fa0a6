#include "tests/interop/image_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

#include "tests/interop/qemu.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::interop {

namespace {

using support::Random;

constexpr uint64_t kSector = 512;
constexpr uint64_t kMiB = 1 << 20;
// Bytes of one write.  Larger ones are slow to make and show nothing new.
constexpr uint64_t kLongestWrite = 512 << 10;

// Size of the disks of one chain.
enum class Scale { kTiny, kSmall, kHuge };

uint64_t draw_size(Random& random, Scale scale, unsigned cluster_bits) {
  // One L2 table maps this much. With small clusters, a disk soon has thousands of tables.
  const uint64_t reach = uint64_t{1} << (2 * cluster_bits - 3);
  uint64_t size = 0;
  switch (scale) {
    case Scale::kTiny:
      size = random.between(1, 400) * kSector;
      break;
    case Scale::kSmall:
      size = random.between(kSector, std::min(20 * kMiB, 128 * reach));
      break;
    case Scale::kHuge:
      size = random.between(kMiB, std::min(uint64_t{2} << 40, 512 * reach));
      break;
  }
  if (random.chance(40)) size = std::max(size >> cluster_bits, uint64_t{1}) << cluster_bits;
  return std::max(size / kSector, uint64_t{1}) * kSector;
}

Shape draw_shape(Random& random, Scale scale) {
  Shape shape;
  shape.cluster_bits = static_cast<unsigned>(random.between(9, 21));
  if (random.chance(25)) shape.cluster_bits = 16;
  if (scale == Scale::kHuge) shape.cluster_bits = std::max(shape.cluster_bits, 14u);
  if (random.chance(15)) {
    shape.compat = "0.10";
  } else {
    if (random.chance(50)) shape.refcount_bits = 1u << random.below(7);
    shape.extended_l2 = shape.cluster_bits >= 14 && random.chance(30);
    shape.lazy_refcounts = random.chance(20);
    shape.zstd = random.chance(40);
  }
  return shape;
}

// Thrown if QEMU cannot read the image that it has just made.
class NoTruth : public std::runtime_error {
 public:
  explicit NoTruth(const std::string& recipe)
      : std::runtime_error("QEMU cannot read what it made:\n" + recipe) {}
};

// Runs commands for one image, and records them.
class Maker {
 public:
  Maker(Random& random, std::string folder) : random_(random), folder_(std::move(folder)) {}

  MadeImage make();

 private:
  std::string file(const std::string& name) const { return folder_ + "/" + name; }
  // Run a command: the first must succeed, the second may fail.
  void must(const std::vector<std::string>& command);
  bool may(const std::vector<std::string>& command);
  void read_truth(const std::string& image, const std::string& raw);

  void make_patterns();
  std::string make_layer(unsigned level, const std::string& backing, bool backing_is_raw);
  std::string backing_name(const std::string& backing, const std::string& folder);
  void make_raw(const std::string& path);
  void write_some(const std::string& path, const std::string& format);
  std::string draw_operation(uint64_t size);
  void live(const std::string& path);
  void recompress(const std::string& path);
  void leave_dirty(const std::string& path);
  MadeDisk snapshot_disk(const std::string& path, const std::string& name);

  Random& random_;
  const std::string folder_;
  std::string recipe_;
  Scale scale_ = Scale::kSmall;
  Shape shape_;        // of the layer in progress
  uint64_t size_ = 0;  // of the layer in progress, bytes
  std::vector<std::string> patterns_;
  bool backing_has_backing_ = false;  // of the previous layer
  std::vector<std::string> snapshots_;
  bool sound_ = true;
};

void Maker::must(const std::vector<std::string>& command) {
  recipe_ += support::shell_line(command) + "\n";
  try {
    support::run_ok(command);
  } catch (const std::exception& error) {
    throw std::runtime_error(fmt::format("{}\nafter:\n{}", error.what(), recipe_));
  }
}

bool Maker::may(const std::vector<std::string>& command) {
  const auto outcome = support::run(command);
  recipe_ += support::shell_line(command);
  recipe_ += outcome.ok() ? "\n" : fmt::format("  # exit code {}\n", outcome.exit_code);
  return outcome.ok();
}

void Maker::read_truth(const std::string& image, const std::string& raw) {
  if (!may({"qemu-img", "convert", "-O", "raw", image, raw})) throw NoTruth(recipe_);
}

// Makes files from which qemu-io fills its writes repeatedly.
void Maker::make_patterns() {
  std::filesystem::create_directory(file("patterns"));
  for (unsigned number = 0; number < 4; ++number) {
    std::vector<std::byte> bytes(random_.between(1, 48) * 1024 + random_.below(512));
    random_.fill(bytes);
    switch (number) {
      case 0:  // incompressible
        break;
      case 1:  // like text
        for (std::byte& byte : bytes)
          byte = static_cast<std::byte>("etaoin shrdlu,.\n"[std::to_integer<unsigned>(byte) % 16]);
        break;
      case 2:  // runs
        for (size_t at = 1; at < bytes.size(); ++at)
          if (!random_.chance(3)) bytes[at] = bytes[at - 1];
        break;
      default:  // zeros with some data
        for (size_t at = 0; at < bytes.size();) {
          const size_t run = std::min<size_t>(bytes.size() - at, random_.between(1, 8192));
          if (random_.chance(60)) std::fill_n(bytes.begin() + at, run, std::byte{0});
          at += run;
        }
    }
    patterns_.push_back(file(fmt::format("patterns/{}", number)));
    support::write_file(patterns_.back(), bytes);
  }
}

std::string Maker::draw_operation(uint64_t size) {
  const uint64_t cluster = shape_.cluster_size();
  const bool compressed = shape_.data_file == Shape::DataFile::kNone && random_.chance(25);
  // Start of the request: near clusters, subclusters, sectors, or the end of the disk.
  uint64_t at = random_.below(size);
  if (random_.chance(15)) at = size - std::min(size, random_.between(1, 3) * cluster);
  if (scale_ == Scale::kHuge && random_.chance(40)) at = random_.below(std::min(size, 8 * kMiB));
  const std::vector<uint64_t> units{1, kSector, 4096, std::max(cluster / 32, kSector), cluster};
  uint64_t unit = compressed ? cluster : random_.pick(units);
  at = at / unit * unit;
  uint64_t length = random_.between(1, std::max<uint64_t>(random_.below(4 * cluster), 1));
  length = std::min(kLongestWrite, (length + unit - 1) / unit * unit);
  if (compressed) length = std::max<uint64_t>(length / cluster, 1) * cluster;
  length = std::min(length, size - at);

  std::string verb;
  if (compressed) {
    verb = "write -q -c";
  } else {
    switch (random_.below(8)) {
      case 0:
        return fmt::format("write -q -z {} {}", at, length);
      case 1:
        return fmt::format("write -q -z -u {} {}", at, length);
      case 2:
        return fmt::format("discard -q {} {}", at, length);
      case 3:
        return fmt::format("write -q -P 0 {} {}", at, length);
      default:
        verb = "write -q";
    }
  }
  if (random_.chance(40))
    return fmt::format("{} -P {} {} {}", verb, random_.between(1, 255), at, length);
  return fmt::format("{} -s {} {} {}", verb, random_.pick(patterns_), at, length);
}

void Maker::write_some(const std::string& path, const std::string& format) {
  std::vector<std::string> command{"qemu-io", "-f", format};
  if (random_.chance(80)) command.insert(command.end(), {"-d", "unmap"});
  const uint64_t count = random_.between(1, 12);
  std::vector<std::string> operations;
  for (uint64_t i = 0; i < count; ++i) operations.push_back(draw_operation(size_));
  // Compressed writes come last: a QEMU process that frees the cluster of its latest compressed
  // write, and then allocates that cluster for plain data, puts further compressed data in there.
  std::stable_partition(operations.begin(), operations.end(),
                        [](const std::string& it) { return !it.starts_with("write -q -c"); });
  for (const auto& it : operations) command.insert(command.end(), {"-c", it});
  command.push_back(path);
  // A compressed write to an allocated cluster fails. Then QEMU's view of the image is still the
  // truth. If it fails because a refcount would overflow, a cluster may be both free and in use.
  if (!may(command) && format == "qcow2" && !may({"qemu-img", "check", "-q", "-f", format, path}))
    sound_ = false;
}

void Maker::make_raw(const std::string& path) {
  shape_ = Shape{};
  size_ = draw_size(random_, scale_, 16);
  // A raw file may have incomplete sectors, although QEMU rounds the disk up.
  must({"qemu-img", "create", "-q", "-f", "raw", path, std::to_string(size_)});
  shape_.data_file = Shape::DataFile::kPlain;  // does not permit compressed writes
  write_some(path, "raw");
}

// Returns a name of `backing` for a new image in `folder`: relative, absolute, or through a link.
std::string Maker::backing_name(const std::string& backing, const std::string& folder) {
  namespace fs = std::filesystem;
  if (random_.chance(20)) return backing;
  if (random_.chance(25)) {
    const std::string link =
        fmt::format("{}/link-to-{}", folder, fs::path(backing).filename().string());
    const std::string target = fs::relative(backing, folder).string();
    recipe_ += support::shell_line({"ln", "-s", target, link}) + "\n";
    fs::create_symlink(target, link);
    // QEMU resolves the next backing file relative to the link's folder. Only a file without a
    // backing file can always be opened through a link.
    if (!backing_has_backing_) return fs::path(link).filename().string();
  }
  return fs::relative(backing, folder).string();
}

std::string Maker::make_layer(unsigned level, const std::string& backing, bool backing_is_raw) {
  namespace fs = std::filesystem;
  std::string folder = file(fmt::format("level{}", level));
  if (random_.chance(40) && level > 0) folder += "/sub folder";
  fs::create_directories(folder);
  // Opens the image through another name of its folder.
  if (random_.chance(20)) {
    const std::string link = file(fmt::format("link{}", level));
    recipe_ += support::shell_line({"ln", "-s", folder, link}) + "\n";
    fs::create_directory_symlink(folder, link);
    // After a link, "../" has another meaning: names of backing files must be absolute.
    if (backing.empty()) folder = link;
  }
  const std::string path = folder + "/disk.qcow2";

  shape_ = draw_shape(random_, scale_);
  size_ = draw_size(random_, scale_, shape_.cluster_bits);
  const bool plain = backing.empty() && scale_ != Scale::kHuge && !shape_.extended_l2;
  if (plain && random_.chance(25))
    shape_.preallocation = random_.pick(std::vector<std::string>{"metadata", "falloc", "full"});
  if (shape_.extended_l2 && scale_ != Scale::kHuge && random_.chance(25))
    shape_.preallocation = "metadata";
  std::string options = shape_.options();
  if (shape_.v3() && random_.chance(12)) {
    // QEMU reads raw data files completely, including holes.
    const bool raw = backing.empty() && scale_ != Scale::kHuge && random_.chance(50);
    shape_.data_file = raw ? Shape::DataFile::kRaw : Shape::DataFile::kPlain;
    shape_.preallocation = "off";
    // The name is absolute, since QEMU resolves a relative one in its working directory.
    options = shape_.options() +
              fmt::format(",data_file={}/data{}", random_.chance(50) ? folder : folder_, level);
    if (raw) options += ",data_file_raw=on";
  }

  std::vector<std::string> command{"qemu-img", "create", "-q", "-f", "qcow2", "-o", options};
  if (!backing.empty()) {
    command.insert(command.end(),
                   {"-b", backing_name(backing, folder), "-F", backing_is_raw ? "raw" : "qcow2"});
  }
  command.push_back(path);
  command.push_back(std::to_string(size_));
  must(command);
  backing_has_backing_ = !backing.empty();
  return path;
}

// Applies writes, snapshots and resizes, like the use of a real disk.
void Maker::live(const std::string& path) {
  const uint64_t rounds = random_.between(1, 4);
  for (uint64_t round = 0; round < rounds; ++round) {
    write_some(path, "qcow2");
    if (shape_.data_file == Shape::DataFile::kNone && shape_.refcount_bits >= 4 &&
        random_.chance(35)) {
      const std::string name =
          random_.chance(20) ? fmt::format("état {}", round) : fmt::format("s{}", round);
      // If the refcounts are too narrow, the command fails and leaves wrong refcounts.
      if (may({"qemu-img", "snapshot", "-q", "-c", name, path}))
        snapshots_.push_back(name);
      else
        sound_ = false;
    }
    if (random_.chance(25)) {
      const uint64_t size = draw_size(random_, scale_, shape_.cluster_bits);
      may({"qemu-img", "resize", "-q", "--shrink", path, std::to_string(size)});
      size_ = virtual_size(path);
    }
  }
}

// Rewrites the image with qemu-img convert, which packs compressed clusters differently.
void Maker::recompress(const std::string& path) {
  const std::string target = path + ".new";
  Shape shape = draw_shape(random_, scale_);
  must({"qemu-img", "convert", "-c", "-f", "qcow2", "-O", "qcow2", "-o", shape.options(), path,
        target});
  recipe_ += support::shell_line({"mv", target, path}) + "\n";
  std::filesystem::rename(target, path);
  snapshots_.clear();
  shape_ = shape;
}

// Kills a writing qemu-io, so that the dirty bit stays set.
void Maker::leave_dirty(const std::string& path) {
  may({"qemu-io", "-f", "qcow2", "-c", draw_operation(size_), "-c", "write -q -P 77 0 512", "-c",
       "flush", "-c", "sigraise 9", path});
  sound_ = false;
}

MadeDisk Maker::snapshot_disk(const std::string& path, const std::string& name) {
  // In the image's folder, so that relative names stay valid.
  MadeDisk disk;
  disk.snapshot = name;
  disk.image = fmt::format("{}.at-{}", path, snapshots_.size() + random_.below(1'000'000'000));
  disk.raw = disk.image + ".raw";
  must({"cp", path, disk.image});
  if (!may({"qemu-img", "snapshot", "-q", "-a", name, disk.image})) throw NoTruth(recipe_);
  read_truth(disk.image, disk.raw);
  return disk;
}

MadeImage Maker::make() {
  scale_ = random_.chance(15) ? Scale::kTiny : random_.chance(20) ? Scale::kHuge : Scale::kSmall;
  make_patterns();

  const uint64_t depth = random_.chance(45) ? 1 : random_.between(2, 4);
  std::string path;
  bool raw = false;
  for (unsigned level = 0; level < depth; ++level) {
    snapshots_.clear();
    if (level == 0 && depth > 1 && random_.chance(50)) {
      path = file("base disk.raw");
      make_raw(path);
      raw = true;
      continue;
    }
    path = make_layer(level, path, raw);
    raw = false;
    if (level + 1 == depth) {
      live(path);
    } else {
      write_some(path, "qcow2");
    }
  }
  if (shape_.data_file == Shape::DataFile::kNone && random_.chance(15)) recompress(path);
  if (shape_.lazy_refcounts && random_.chance(50)) leave_dirty(path);

  MadeImage made;
  made.path = path;
  made.cluster_size = shape_.cluster_size();
  made.size = virtual_size(path);
  made.sound = sound_;
  made.huge = scale_ == Scale::kHuge;
  made.disks.push_back({"", path + ".truth.raw", path});
  read_truth(path, made.disks.front().raw);
  for (const std::string& name : snapshots_) made.disks.push_back(snapshot_disk(path, name));
  made.recipe = recipe_;
  return made;
}

}  // namespace

std::string Shape::options() const {
  std::string text = fmt::format("compat={},cluster_size={}", compat, cluster_size());
  if (!v3()) return text;
  text += fmt::format(",refcount_bits={}", refcount_bits);
  text += fmt::format(",extended_l2={}", extended_l2 ? "on" : "off");
  text += fmt::format(",lazy_refcounts={}", lazy_refcounts ? "on" : "off");
  text += fmt::format(",compression_type={}", zstd ? "zstd" : "zlib");
  text += fmt::format(",preallocation={}", preallocation);
  return text;
}

MadeImage make_image(Random& random, const std::string& folder) {
  // QEMU cannot read some images that it made, with combinations of compressed writes, snapshots
  // and shrinking. Such an image is replaced with another one.
  for (unsigned attempt = 0;; ++attempt) {
    const std::string own = fmt::format("{}/{}", folder, attempt);
    std::filesystem::create_directory(own);
    try {
      return Maker(random, own).make();
    } catch (const NoTruth&) {
      if (attempt == 9) throw;
    }
  }
}

}  // namespace vc::interop
