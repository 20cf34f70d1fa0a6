#include "inspect/image_info.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/rounding.h"
#include "qcow2/format/json_name.h"
#include "storage/file_storage.h"

namespace vc::inspect {

namespace {

// Rounds up to whole sectors, as QEMU does for the size of a disk.
uint64_t round_up_to_sectors(uint64_t size) {
  return round_up(size, qcow2::Geometry::kSectorSize);
}

// Returns names that are not files, such as nbd://…, unchanged, as qemu-img does.
std::string full_backing_filename(const std::string& path, const std::string& name) {
  if (name.empty() || name.rfind("file:", 0) == 0 || qcow2::is_json_name(name)) return name;
  return qcow2::resolve_name(path, name).value_or(name);
}

// Returns the value. On an error, returns an empty value and records the message.
template <typename T>
T take(ImageInfo& info, Result<T> result) {
  if (result) return std::move(*result);
  info.missing.push_back(result.error().message());
  return T();
}

void set_luks(crypto::LuksHeader luks, ImageInfo& info) {
  luks.bytes = {};
  info.luks = std::move(luks);
}

void read_details(const FileStorage& file, const InfoOptions& options, ImageInfo& info) {
  const qcow2::Header& header = *info.header;
  info.snapshots = take(info, qcow2::read_snapshot_table(file, header, qcow2::SnapshotUse::kList));
  if (header.crypt_method == qcow2::CryptMethod::kLuks) {
    auto luks = qcow2::read_luks_header(file, header);
    if (luks)
      set_luks(std::move(*luks), info);
    else
      info.missing.push_back(luks.error().message());
  }
  info.bitmaps = take(info, qcow2::read_bitmap_directory(file, header)).bitmaps;
  const uint64_t l1_bytes = uint64_t{header.l1_entries} * 8;
  if (l1_bytes > *info.file_length || header.l1_table.value() > *info.file_length - l1_bytes)
    info.damages.push_back(
        fmt::format("the L1 table at {:#x} ends past the end of the file at {:#x}",
                    header.l1_table.value(), *info.file_length));
  const auto usable = qcow2::read_snapshot_table(file, header);
  if (!usable && info.missing.empty()) info.damages.push_back(usable.error().message());
  if (!options.survey) return;
  qcow2::SurveyOptions how;
  if (options.progress)
    how.progress = [&](uint64_t done, uint64_t total) {
      const uint64_t reach = header.geometry().l2_reach();
      options.progress(done * reach, total * reach);
    };
  auto survey = qcow2::survey(file, header, usable.value_or(std::vector<qcow2::Snapshot>{}), how);
  if (survey)
    info.survey = std::move(*survey);
  else
    info.damages.push_back(survey.error().message());
}

Result<ImageInfo> read_info(const std::shared_ptr<FileStorage>& file, const InfoOptions& options) {
  const std::string& path = file->name();
  qcow2::OpenOptions how;
  how.force_share = options.force_share;
  how.force_share_option = "--force-share";
  RETURN_IF_ERROR(qcow2::lock_for_reading(*file, how));
  ImageInfo info;
  info.filename = path;
  ASSIGN_OR_RETURN(info.file_length, file->size());
  ASSIGN_OR_RETURN(info.disk_size, file->blocks());
  info.block_device = file->is_block_device();
  if (options.format)
    info.format = *options.format;
  else {
    ASSIGN_OR_RETURN(info.format, qcow2::probe_format(*file));
  }
  if (info.format == qcow2::Format::kRaw) {
    info.virtual_size = round_up_to_sectors(*info.file_length);
    return info;
  }
  if (info.format == qcow2::Format::kLuks) {
    ASSIGN_OR_RETURN(auto luks, with_context(crypto::LuksHeader::read_disk(*file), path));
    info.virtual_size = *info.file_length - std::min(*info.file_length, luks.payload);
    set_luks(std::move(luks), info);
    return info;
  }
  ASSIGN_OR_RETURN(info.header,
                   with_context(qcow2::Header::read(*file, qcow2::Header::Purpose::kTell), path));
  if (options.trust.limits)
    RETURN_IF_ERROR(with_context(qcow2::check_untrusted_header(*info.header, options.trust), path));
  info.virtual_size = round_up_to_sectors(info.header->size);
  info.full_backing_filename = full_backing_filename(path, info.header->backing_file);
  read_details(*file, options, info);
  return info;
}

// Returns the path of the backing file of `info`, and sets its format in `options`.
Result<std::string> backing_path(const ImageInfo& info, InfoOptions& options) {
  ASSIGN_OR_RETURN(auto path, qcow2::resolve_name(info.filename, info.header->backing_file));
  options.format.reset();
  auto name = info.header->backing_format();
  if (auto driver = qcow2::json_driver(info.header->backing_file); !driver.empty()) name = driver;
  if (!name) return path;
  for (const auto format : {qcow2::Format::kQcow2, qcow2::Format::kRaw, qcow2::Format::kLuks})
    if (*name == to_string(format)) options.format = format;
  if (!options.format)
    return fail(Error::unsupported(
        fmt::format("its format is '{}': only qcow2, raw and luks are supported", *name)));
  return path;
}

}  // namespace

Result<ImageInfo> read_image_info(const std::string& path, const InfoOptions& options) {
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(path));
  return read_info(file, options);
}

std::vector<ImageInfo> read_chain_info(const std::string& path, const InfoOptions& options,
                                       std::optional<Error>& error) {
  constexpr auto kBacking = qcow2::NamedFiles::Kind::kBacking;
  std::vector<ImageInfo> chain;
  std::vector<FileStorage::Identity> seen;
  qcow2::NamedFiles names(options.trust.names);
  InfoOptions next = options;
  const auto look = [&]() -> Result<ImageInfo> {
    if (chain.empty()) {
      ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(path));
      seen.push_back(file->identity());
      names.add_author(*file);
      return read_info(file, next);
    }
    RETURN_IF_ERROR(names.check_allowed(kBacking, chain.back().header->backing_file));
    ASSIGN_OR_RETURN(const std::string name, backing_path(chain.back(), next));
    ASSIGN_OR_RETURN(const auto file, names.open(kBacking, name, false));
    if (std::find(seen.begin(), seen.end(), file->identity()) != seen.end())
      return fail(Error::corrupt(
          fmt::format("{}: the backing chain leads back to this file, so it has no end", name)));
    seen.push_back(file->identity());
    names.add_author(*file);
    return read_info(file, next);
  };
  for (;;) {
    auto info = look();
    if (!info) {
      error = std::move(info).error();
      if (!chain.empty())
        error = std::move(*error).with_context(chain.back().filename + ": backing file");
      return chain;
    }
    chain.push_back(std::move(*info));
    if (!chain.back().header || chain.back().header->backing_file.empty()) return chain;
  }
}

}  // namespace vc::inspect
