#include "guest/filesystem/ntfs/ntfs_files.h"

#include <fmt/format.h>

#include <optional>
#include <string>

#include "base/rounding.h"
#include "guest/filesystem/ntfs/ntfs_directory.h"
#include "guest/filesystem/ntfs/ntfs_metadata.h"

namespace vc::guest {

namespace {

// Lower records are the volume's own metadata.
constexpr uint64_t kFirstFile = 24;
constexpr uint16_t kDirectory = 2;
constexpr uint16_t kEncrypted = 0x4000;
// Attribute flags of standard information: sparse, reparse point, compressed, encrypted.
constexpr uint32_t kSpecial = 0x200 | 0x400 | 0x800 | 0x4000;
constexpr uint64_t kRecordMask = 0xFFFFFFFFFFFF;

Failure unclear(const char* name, const char* why) {
  return doubt(fmt::format("its {} {}", name, why));
}

// Returns an error unless the record belongs to the file of the directory entry.
Result<void> check_record(const NtfsVolume& volume, const Block& record, const NtfsEntry& entry,
                          const char* name) {
  const Fields it = record.fields();
  if (entry.record < kFirstFile || it.le16(0x10) != entry.sequence ||
      (it.le16(0x16) & kDirectory) != 0 || it.le64(0x20) != 0)
    return unclear(name, "does not match its directory entry");
  ASSIGN_OR_RETURN(const auto named, volume.find(record, NtfsAttributeType::kFileName));
  if (!named || !named->is_resident) return unclear(name, "has no name");
  const Fields key = named->value.fields();
  if ((key.le64(0) & kRecordMask) != static_cast<uint64_t>(NtfsRecord::kRoot) ||
      lower_text(utf16_text(key.part(0x42, key.u8(0x40) * size_t{2}))) != name)
    return unclear(name, "has a second name");
  ASSIGN_OR_RETURN(const auto information,
                   volume.find(record, NtfsAttributeType::kStandardInformation));
  if (!information || !information->is_resident ||
      (information->value.fields().le32(0x20) & kSpecial) != 0)
    return unclear(name, "is sparse, compressed or encrypted");
  return {};
}

// Returns the clusters of `runs`. Returns an error if a cluster occurs twice.
Result<Ranges> clusters_of(const std::vector<NtfsRun>& runs, const char* name) {
  Ranges::Builder builder;
  uint64_t count = 0;
  for (const NtfsRun& run : runs) {
    if (!run.lcn) return unclear(name, "has holes");
    builder.add(*run.lcn, *run.lcn + run.length);
    count += run.length;
  }
  Ranges clusters = builder.take();
  if (clusters.total() != count) return unclear(name, "uses a cluster twice");
  return clusters;
}

Result<std::optional<FoundFile>> find_file(const NtfsVolume& volume, const char* name,
                                           Ranges::Builder& taken, uint64_t& taken_bytes) {
  ASSIGN_OR_RETURN(const auto entry, find_in_root(volume, name));
  if (!entry) return std::optional<FoundFile>();
  ASSIGN_OR_RETURN(const Block record, volume.record(entry->record));
  RETURN_IF_ERROR(check_record(volume, record, *entry, name));
  ASSIGN_OR_RETURN(const auto data, volume.find(record, NtfsAttributeType::kData));
  if (!data) return unclear(name, "has no content");
  if (data->is_compressed_or_sparse() || (data->flags & kEncrypted) != 0)
    return unclear(name, "is sparse, compressed or encrypted");
  FoundFile file;
  file.path = fmt::format("/{}", name);
  file.size = data->size;
  ASSIGN_OR_RETURN(const Ranges clusters, clusters_of(data->runs, name));
  if (!data->is_resident && divide_up(data->size, volume.cluster_size()) > clusters.total())
    return unclear(name, "is longer than its allocated size");
  file.contents = clusters.scaled(volume.cluster_size(), 0);
  for (const Range& range : file.contents.all()) taken.add(range.begin, range.end);
  taken_bytes += file.contents.total();
  return std::optional(std::move(file));
}

}  // namespace

Result<std::vector<FoundFile>> find_ntfs_files(const NtfsVolume& volume, const Ranges& free,
                                               const FileKinds& kinds) {
  Ranges::Builder builder;
  uint64_t bytes = 0;
  std::vector<FoundFile> files;
  for (const auto& [wanted, name] :
       {std::pair(kinds.pagefile, "pagefile.sys"), std::pair(kinds.swapfile, "swapfile.sys"),
        std::pair(kinds.hiberfile, "hiberfil.sys")}) {
    if (!wanted) continue;
    ASSIGN_OR_RETURN(auto file, find_file(volume, name, builder, bytes));
    if (file) files.push_back(std::move(*file));
  }
  if (files.empty()) return files;
  const Ranges taken = builder.take();
  if (taken.total() != bytes) return doubt("two of its files share a cluster");
  if (!taken.within(free).empty())
    return doubt("its allocation bitmap marks a cluster of a file as free");
  ASSIGN_OR_RETURN(const Ranges own, ntfs_metadata(volume));
  if (!taken.within(own.scaled(volume.cluster_size(), 0)).empty())
    return doubt("a file uses a cluster of the metadata");
  return files;
}

}  // namespace vc::guest
