#include "qcow2/write/disk_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "qcow2/read/qcow2_layer.h"
#include "qcow2/refcounts/in_place_rebuild.h"

namespace vc::qcow2 {

Result<std::unique_ptr<DiskWriter>> DiskWriter::open(
    std::shared_ptr<Storage> storage, Header header, std::shared_ptr<Storage> data_file,
    std::vector<std::shared_ptr<Layer>> backing, std::shared_ptr<TableCache> cache,
    const Options& options, std::shared_ptr<const Encryption> encryption) {
  const auto in_image = [&](Error error) { return std::move(error).with_context(storage->name()); };
  if ((header.incompatible_features & incompatible::kCorrupt) != 0)
    return fail(in_image(Error::corrupt(
        "the image is marked corrupt: it can be read, and must be repaired before it is written")));
  if ((header.incompatible_features & incompatible::kDirty) != 0) {
    ASSIGN_OR_RETURN(const auto dirty,
                     Image::open(storage, header, data_file, std::make_shared<TableCache>(0)));
    RETURN_IF_ERROR(rebuild_in_place(storage, *dirty));
    header.incompatible_features &= ~incompatible::kDirty;
  }
  ASSIGN_OR_RETURN(auto image, Image::open(storage, std::move(header), std::move(data_file), cache,
                                           std::move(encryption)));
  std::unique_ptr<DiskWriter> writer(new DiskWriter(image, options));
  const Header& read = image->header();
  ASSIGN_OR_RETURN(writer->map_, ClusterMap::open(storage, std::move(cache), image->geometry(),
                                                  read.l1_table, read.l1_entries));
  RETURN_IF_ERROR(writer->map_->make_writable());
  auto refcounts = Refcounts::load(storage, read);
  if (!refcounts) return fail(in_image(std::move(refcounts).error()));
  writer->refcounts_ = std::move(*refcounts);
  auto mapping = WritableMap::open(image, writer->map_, *writer->refcounts_, read.has_data_file());
  if (!mapping) return fail(in_image(std::move(mapping).error()));
  writer->mapping_ = std::move(*mapping);
  writer->l1_table_ = read.l1_table;
  writer->storage_ = std::move(storage);
  writer->data_ = image->shared_data_storage();
  std::vector<std::shared_ptr<Layer>> layers{
      std::make_shared<Qcow2Layer>(image, writer->map_, read.size)};
  layers.insert(layers.end(), backing.begin(), backing.end());
  writer->disk_ = std::make_unique<Disk>(std::move(layers));
  RETURN_IF_ERROR(writer->open_bitmaps());
  return writer;
}

Result<void> DiskWriter::open_bitmaps() {
  ASSIGN_OR_RETURN(auto directory, parse_bitmap_directory(*storage_, image_->header()));
  if (directory.size == 0 || directory.fault) return {};
  ASSIGN_OR_RETURN(const bool valid, mapping_->add_bitmaps(directory));
  if (valid)
    bitmaps_ = std::make_unique<BitmapKeeper>(storage_, image_->header(), std::move(directory));
  return {};
}

Result<void> DiskWriter::refuse_table(GuestOffset at, const OverlapCheck::Hit& hit) {
  // The mark tells the next program that opens the image.
  (void)mark_corrupt();
  return fail(Error::corrupt(fmt::format(
      "{}: guest offset {:#x} overlaps {}, at {:#x}: the image is damaged, and marked corrupt",
      image_->name(), at.value(), with_article(hit.structure),
      geometry_.start_of(hit.cluster).value())));
}

Result<void> DiskWriter::read(GuestOffset at, std::span<std::byte> to) const {
  const Epochs::Ticket ticket(epochs_);
  return disk_->read(at, to);
}

Result<void> DiskWriter::map(GuestOffset at, uint64_t length, std::vector<Extent>& out,
                             size_t max_extents) const {
  return disk_->map(at, length, out, max_extents);
}

Result<bool> DiskWriter::reads_as_zero(GuestOffset at, uint64_t length) const {
  std::vector<Extent> extents;
  while (length > 0) {
    extents.clear();
    RETURN_IF_ERROR(disk_->map(at, length, extents, 64));
    for (const Extent& extent : extents)
      if (!extent.reads_as_zero()) return false;
    length -= extents.back().end() - at;
    at = extents.back().end();
  }
  return true;
}

Result<void> DiskWriter::write_range(GuestOffset at, std::span<const std::byte> from) {
  while (!from.empty()) {
    HostOffset host;
    uint64_t done = 0;
    std::optional<OverlapCheck::Hit> hit;
    {
      const auto lock = map_->lock_shared();
      ASSIGN_OR_RETURN(done, mapping_->find_in_place(at, from.size(), host));
      if (done > 0) hit = mapping_->table_at(host, done);
    }
    if (hit) return refuse_table(at, *hit);
    if (done > 0) {
      RETURN_IF_ERROR(prepare_header());
      RETURN_IF_ERROR(data_->write(host, from.first(done)));
    } else {
      ASSIGN_OR_RETURN(done, write_allocating(at, from));
    }
    at += done;
    from = from.subspan(done);
  }
  return {};
}

Result<void> DiskWriter::write(GuestOffset at, std::span<const std::byte> from) {
  {
    const Epochs::Ticket ticket(epochs_);
    set_changed(at, from.size());
    RETURN_IF_ERROR(write_range(at, from));
  }
  bool many = false;
  {
    const auto lock = map_->lock_shared();
    many = map_->changed_bytes() > options_.changes_limit;
  }
  return many ? commit(false) : Result<void>{};
}

DiskWriter::Statistics DiskWriter::statistics() const {
  return {allocated_ + mapping_->allocated(), zeroed_, freed_, truncated_};
}

}  // namespace vc::qcow2
