#include "tool/image_info.h"

#include "qcow2/file_storage.h"

namespace tool {

namespace {

using qcow2::Result;

// The size that QEMU gives a disk: whole sectors.
uint64_t round_up_to_sectors(uint64_t size) {
  return (size + qcow2::Geometry::kSectorSize - 1) / qcow2::Geometry::kSectorSize *
         qcow2::Geometry::kSectorSize;
}

// Names that are no file, such as nbd://…, stand for themselves, as in qemu-img.
std::string full_backing_filename(const std::string& path, const std::string& name) {
  if (name.empty() || name.rfind("file:", 0) == 0) return name;
  return qcow2::resolve_name(path, name).value_or(name);
}

}  // namespace

Result<ImageInfo> read_image_info(const std::string& path, std::optional<qcow2::Format> format,
                                  bool force_share) {
  ASSIGN_OR_RETURN(const auto file, qcow2::FileStorage::open_readonly(path));
  qcow2::OpenOptions options;
  options.force_share = force_share;
  options.force_share_option = "--force-share";
  RETURN_IF_ERROR(qcow2::lock_for_reading(*file, options));
  ImageInfo info;
  info.filename = path;
  ASSIGN_OR_RETURN(info.file_length, file->size());
  ASSIGN_OR_RETURN(info.disk_size, file->blocks());
  if (!format) {
    ASSIGN_OR_RETURN(format, qcow2::probe_format(*file));
  }
  info.format = *format;
  if (info.format == qcow2::Format::kRaw) {
    info.virtual_size = round_up_to_sectors(info.file_length);
    return info;
  }
  ASSIGN_OR_RETURN(info.header, qcow2::with_context(qcow2::Header::read(*file), path));
  info.virtual_size = round_up_to_sectors(info.header->size);
  ASSIGN_OR_RETURN(info.snapshots,
                   qcow2::with_context(qcow2::read_snapshot_table(*file, *info.header), path));
  info.full_backing_filename = full_backing_filename(path, info.header->backing_file);
  return info;
}

}  // namespace tool
