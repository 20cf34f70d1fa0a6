#include "filters/decoded_image.h"

#include <fmt/format.h>

#include <algorithm>

#include "nbdkit/serving/snapshot_exports.h"
#include "qcow2/format/header.h"
#include "qcow2/read/qcow2_layer.h"

namespace vc::filters {

using qcow2::Snapshot;

namespace {

Error out_of_reach(const std::string& image, const char* what, const std::string& name) {
  return Error::unsupported(
      fmt::format("{}: the image has the {} '{}', which the filter cannot open through the layer "
                  "below: serve a flat copy (virt-compact copy, qemu-img convert), or run nbdkit "
                  "qcow2 FILE without this filter on the machine that has the files",
                  image, what, name));
}

}  // namespace

Result<std::shared_ptr<DecodedImage>> DecodedImage::open(
    std::shared_ptr<Storage> storage, std::shared_ptr<qcow2::TableCache> tables) {
  const std::string& name = storage->name();
  ASSIGN_OR_RETURN(qcow2::Header header, with_context(qcow2::Header::read(*storage), name));
  if (!header.backing_file.empty())
    return fail(out_of_reach(name, "backing file", header.backing_file));
  if (header.has_data_file())
    return fail(out_of_reach(name, "external data file", header.data_file().value_or("")));
  ASSIGN_OR_RETURN(auto image, qcow2::Image::open(std::move(storage), std::move(header), nullptr,
                                                  std::move(tables)));
  return std::shared_ptr<DecodedImage>(new DecodedImage(std::move(image)));
}

uint64_t DecodedImage::preferred_block_size() const {
  // Smaller reads decode a compressed cluster repeatedly. At least a page, as the protocol
  // recommends.
  return std::max<uint64_t>(image_->geometry().cluster_size(), 4096);
}

Result<std::shared_ptr<DecodedImage::Disk>> DecodedImage::disk(
    const std::optional<std::string>& snapshot) {
  const Snapshot* found = nullptr;
  if (snapshot) {
    found = qcow2::find_snapshot(snapshots(), *snapshot);
    if (!found)
      return fail(
          Error::invalid(fmt::format("{}: there is no snapshot '{}'", image_->name(), *snapshot)));
  }
  return disks_.get(found, [&]() -> Result<std::shared_ptr<Disk>> {
    ASSIGN_OR_RETURN(auto layer, found ? qcow2::open_snapshot_layer(image_, *found)
                                       : qcow2::open_active_layer(image_));
    std::string description =
        found ? nbdkit::describe(*found) : nbdkit::describe_disk(layer->size());
    return std::make_shared<Disk>(Disk{qcow2::Disk({std::move(layer)}), std::move(description)});
  });
}

}  // namespace vc::filters
