#include "qcow2/relocate/discard_in_memory.h"

#include "qcow2/write/disk_writer.h"
#include "storage/scratch_storage.h"

namespace vc::qcow2 {

namespace {

// Tables in memory, in bytes.
constexpr uint64_t kTableMemory = 32 << 20;

}  // namespace

Result<std::shared_ptr<Storage>> discard_in_memory(
    const std::shared_ptr<Storage>& image, const std::shared_ptr<const Encryption>& encryption,
    const std::vector<ByteRange>& ranges) {
  ASSIGN_OR_RETURN(const auto storage, ScratchStorage::create(image));
  ASSIGN_OR_RETURN(Header header, Header::read(*storage, Header::Purpose::kUnlock));
  // The refcounts are needed at once.
  header.compatible_features &= ~compatible::kLazyRefcounts;
  DiskWriter::Options options;
  options.discard = false;
  ASSIGN_OR_RETURN(const auto writer, DiskWriter::open(storage, std::move(header), nullptr, {},
                                                       std::make_shared<TableCache>(kTableMemory),
                                                       options, encryption));
  for (const ByteRange& it : ranges)
    RETURN_IF_ERROR(writer->discard(GuestOffset(it.begin), it.length()));
  // What the first flush frees is written by the second one.
  RETURN_IF_ERROR(writer->flush());
  RETURN_IF_ERROR(writer->flush());
  return storage;
}

}  // namespace vc::qcow2
