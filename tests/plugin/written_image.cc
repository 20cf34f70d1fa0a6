#include "tests/plugin/written_image.h"

#include <fmt/format.h>

#include <algorithm>

#include "tests/plugin/served_disk.h"
#include "tests/support/process.h"
#include "tests/support/raw_file.h"

namespace vc::test {

namespace {

using interop::Shape;
using support::Random;

Shape draw_shape(Random& random) {
  Shape shape;
  shape.cluster_bits = static_cast<unsigned>(random.between(9, 21));
  if (random.chance(20)) {
    shape.compat = "0.10";
    return shape;
  }
  shape.refcount_bits = 1u << random.below(7);
  shape.extended_l2 = shape.cluster_bits >= 14 && random.chance(35);
  shape.lazy_refcounts = random.chance(25);
  shape.zstd = random.chance(40);
  if (random.chance(15))
    shape.data_file = random.chance(50) ? Shape::DataFile::kPlain : Shape::DataFile::kRaw;
  return shape;
}

// Returns runs of zeros, of compressible data, and of incompressible data.
Bytes draw_bytes(Random& random, uint64_t length) {
  Bytes bytes(length);
  const std::span<std::byte> all(bytes);
  for (uint64_t at = 0; at < length;) {
    const auto run = all.subspan(at, std::min(length - at, random.between(1, 200000)));
    if (random.chance(40))
      random.fill(run);
    else if (random.chance(50))
      std::fill(run.begin(), run.end(), static_cast<std::byte>(random.below(256)));
    at += run.size();
  }
  return bytes;
}

}  // namespace

WrittenImage make_written_image(Random& random, const support::TempDirectory& folder) {
  WrittenImage image;
  image.shape = draw_shape(random);
  image.path = folder / "disk.qcow2";
  const unsigned unit = std::max(image.shape.cluster_bits, 12u);
  image.size = random.between(1, unit == 12 ? 400 : unit > 18 ? 8 : 40) << unit;
  // In sectors, the smallest unit of qemu-img.
  if (random.chance(50)) image.size -= random.below(uint64_t{1} << (unit - 9)) * 512;

  std::string options = image.shape.options();
  const bool data_file = image.shape.data_file != Shape::DataFile::kNone;
  if (data_file) options += ",data_file=" + (folder / "data");
  if (image.shape.data_file == Shape::DataFile::kRaw) options += ",data_file_raw=on";
  std::vector<std::string> command{"convert", "-O", "qcow2", "-o"};
  const std::string size = std::to_string(image.size);
  std::string how = "empty";
  if (!data_file) {
    const unsigned width = image.shape.refcount_bits;
    image.can_have_snapshots = width >= 16 || (width >= 4 && random.chance(50));
    image.can_compress = width >= 16 || !image.can_have_snapshots;
  }
  if (!data_file && random.chance(50)) {
    image.backed = true;
    how = "backed";
    Bytes backing = draw_bytes(random, random.between(1, image.size / 512 * 3 / 2) * 512);
    support::write_file(folder / "base", backing);
    qemu_img({"create", "-q", "-f", "qcow2", "-o", options, "-b", folder / "base", "-F", "raw",
              image.path, size});
    backing.resize(image.size);
    image.contents = std::move(backing);
  } else if (random.chance(40)) {
    image.contents.resize(image.size);
    qemu_img({"create", "-q", "-f", "qcow2", "-o", options, image.path, size});
  } else {
    how = "full";
    image.contents = draw_bytes(random, image.size);
    support::write_file(folder / "raw", image.contents);
    command.push_back(options);
    if (image.can_compress && random.chance(50)) {
      how = "compressed";
      command.emplace_back("-c");
    }
    command.insert(command.end(), {"-f", "raw", folder / "raw", image.path});
    qemu_img(command);
  }
  image.kind = fmt::format("{}{}, {}, {} bytes", image.shape.options(),
                           data_file ? ",data_file" : "", how, image.size);
  return image;
}

Bytes read_by_qemu(const support::TempDirectory& folder, const std::string& image,
                   const std::string& snapshot) {
  const std::string raw = folder / "read-by-qemu";
  std::vector<std::string> command{"convert", "-f", "qcow2", "-O", "raw"};
  if (!snapshot.empty()) command.insert(command.end(), {"-l", "snapshot.name=" + snapshot});
  command.insert(command.end(), {image, raw});
  qemu_img(command);
  return support::read_file(raw);
}

}  // namespace vc::test
