// The records of an NTFS volume, and the attributes in them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "guest/reading/byte_view.h"
#include "guest/reading/reading.h"

namespace vc::guest {

// Records that every volume has.
enum class NtfsRecord : uint64_t {
  kMft = 0,
  kMftMirror = 1,
  kLogFile = 2,
  kVolume = 3,
  kAttributeDefinitions = 4,
  kRoot = 5,
  kBitmap = 6,
  kBadClusters = 8,
  kUpCase = 10,
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

// Clusters of an attribute.
struct NtfsRun {
  uint64_t vcn;                 // number in the attribute
  std::optional<uint64_t> lcn;  // number on the volume; nothing: a hole
  uint64_t length;
};

struct NtfsAttribute {
  bool is_resident = true;
  uint16_t flags = 0;
  Block value{0};             // resident
  std::vector<NtfsRun> runs;  // not resident
  uint64_t size = 0;          // bytes
  uint64_t initialized = 0;   // bytes that are not zeros by definition

  bool is_compressed_or_sparse() const { return (flags & 0x80FF) != 0; }
};

class NtfsVolume {
 public:
  // `view` outlives the volume.
  static Result<NtfsVolume> open(const ByteView& view);

  const ByteView& view() const { return *view_; }
  uint64_t cluster_size() const { return cluster_; }  // bytes
  uint64_t clusters() const { return clusters_; }
  uint64_t serial() const { return serial_; }

  // An error unless the record is in use and whole.
  Result<Block> record(uint64_t number) const;
  Result<Block> record(NtfsRecord number) const { return record(static_cast<uint64_t>(number)); }
  // The attribute of a record by type and name.  `record` is the first one of its file: the
  // attributes may be spread over others.
  Result<std::optional<NtfsAttribute>> find(const Block& record, NtfsAttributeType type,
                                            const std::string& name = "") const;
  // The same for a record that must have it.
  Result<NtfsAttribute> get(NtfsRecord number, NtfsAttributeType type,
                            const std::string& name = "") const;
  // The clusters of all attributes that are in the record, in no order.  Parts of an attribute in
  // other records are not among them.
  Result<std::vector<NtfsRun>> runs_of(const Block& record) const;
  // Bytes of an attribute, [at, at + length) of its value.
  Result<Block> read(const NtfsAttribute& attribute, uint64_t at, uint64_t length) const;
  // Puts the bytes back that the ends of the sectors of a record were exchanged for.
  static Result<void> undo_fixups(Block& record, std::string_view magic);

 private:
  explicit NtfsVolume(const ByteView& view) : view_(&view) {}

  Result<void> read_boot(const Fields& boot);
  // In this record alone: attributes of which `vcn` is the first cluster.
  Result<std::optional<Fields>> find_within(const Block& record, NtfsAttributeType type,
                                            const std::string& name, uint64_t vcn = 0) const;
  Result<std::optional<NtfsAttribute>> find_in_list(const Block& record, const Block& list,
                                                    NtfsAttributeType type,
                                                    const std::string& name) const;
  Result<Block> read_list(const NtfsAttribute& list) const;
  Result<NtfsAttribute> decode(const Fields& attribute, uint64_t vcn = 0) const;
  Result<std::vector<NtfsRun>> decode_runs(const Fields& bytes, uint64_t vcn) const;

  const ByteView* view_;
  uint64_t cluster_ = 0;
  uint64_t clusters_ = 0;
  uint64_t record_size_ = 0;  // bytes
  uint64_t serial_ = 0;
  NtfsAttribute mft_;  // contents of the table of files
};

}  // namespace vc::guest
