// Reads the records of an NTFS volume, and their attributes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

// Records that exist on every volume.
enum class NtfsRecord : uint64_t {
  kMft = 0,
  kMftMirror = 1,
  kLogFile = 2,
  kVolume = 3,
  kAttributeDefinitions = 4,
  kRoot = 5,
  kBitmap = 6,
  kExtensions = 11,
};

enum class NtfsAttributeType : uint32_t {
  kStandardInformation = 0x10,
  kAttributeList = 0x20,
  kFileName = 0x30,
  kVolumeName = 0x60,
  kVolumeInformation = 0x70,
  kData = 0x80,
  kIndexRoot = 0x90,
  kIndexAllocation = 0xA0,
  kBitmap = 0xB0,
};

// Consecutive clusters of an attribute.
struct NtfsRun {
  uint64_t vcn;                 // number in the attribute
  std::optional<uint64_t> lcn;  // number on the volume; nullopt: a hole
  uint64_t length;
};

struct NtfsAttribute {
  bool is_resident = true;
  uint16_t flags = 0;
  Block value{0};             // only if resident
  std::vector<NtfsRun> runs;  // only if not resident
  uint64_t size = 0;          // bytes
  uint64_t initialized = 0;   // bytes; the rest reads as zeros

  bool is_compressed_or_sparse() const { return (flags & 0x80FF) != 0; }
};

class NtfsVolume {
 public:
  // `view` must outlive the volume.
  static Result<NtfsVolume> open(const ByteView& view);

  const ByteView& view() const { return *view_; }
  uint64_t cluster_size() const { return cluster_; }  // bytes
  uint64_t clusters() const { return clusters_; }
  uint64_t serial() const { return serial_; }

  // Returns a record. Returns an error unless the record is in use and intact.
  Result<Block> record(uint64_t number) const;
  Result<Block> record(NtfsRecord number) const { return record(static_cast<uint64_t>(number)); }
  // Finds an attribute by type and name. `record` must be the first record of its file. Follows
  // attribute lists to other records.
  Result<std::optional<NtfsAttribute>> find(const Block& record, NtfsAttributeType type,
                                            const std::string& name = "") const;
  // Same for a record that must have the attribute.
  Result<NtfsAttribute> get(NtfsRecord number, NtfsAttributeType type,
                            const std::string& name = "") const;
  // Returns the clusters of all attributes of a file, in no order. `record` must be its first
  // record.
  Result<std::vector<NtfsRun>> runs_of(const Block& record) const;
  // Returns the bytes [at, at + length) of an attribute's value.
  Result<Block> read(const NtfsAttribute& attribute, uint64_t at, uint64_t length) const;
  // Restores the last bytes of each sector of a record, which fixups replace.
  static Result<void> undo_fixups(Block& record, std::string_view magic);

 private:
  explicit NtfsVolume(const ByteView& view) : view_(&view) {}

  Result<void> read_boot(const Fields& boot);
  // Finds the attribute part that begins at cluster `vcn`, in this record alone.
  Result<std::optional<Fields>> find_within(const Block& record, NtfsAttributeType type,
                                            const std::string& name, uint64_t vcn = 0) const;
  Result<std::optional<NtfsAttribute>> find_in_list(const Block& record, const Block& list,
                                                    NtfsAttributeType type,
                                                    const std::string& name) const;
  // Returns the content of the attribute list of a record, or nullopt if it has none.
  Result<std::optional<Block>> list_of(const Block& record) const;
  // Returns a record of the file whose first record has the reference `first`.
  Result<Block> further_record(uint64_t reference, uint64_t first) const;
  Result<void> add_runs(const Block& record, std::vector<NtfsRun>& runs) const;
  Result<NtfsAttribute> decode(const Fields& attribute, uint64_t vcn = 0) const;
  Result<std::vector<NtfsRun>> decode_runs(const Fields& bytes, uint64_t vcn) const;

  const ByteView* view_;
  uint64_t cluster_ = 0;
  uint64_t clusters_ = 0;
  uint64_t record_size_ = 0;  // bytes
  uint64_t serial_ = 0;
  NtfsAttribute mft_;  // contents of the master file table
};

}  // namespace vc::guest
