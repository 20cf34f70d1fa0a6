#include "qcow2/check/bitmap_scan.h"

#include "qcow2/format/bitmap_directory.h"

namespace vc::qcow2 {

Result<BitmapScan> BitmapScan::read(const Storage& storage, const Header& header,
                                    const std::function<void(const Finding&)>& found) {
  ASSIGN_OR_RETURN(const auto parsed, parse_bitmap_directory(storage, header));
  BitmapScan scan;
  scan.directory = parsed.at;
  scan.directory_bytes = parsed.size;
  uint32_t index = 0;
  for (const Bitmap& it : parsed.bitmaps) {
    if (it.in_use()) {
      Finding note{};
      note.kind = Finding::Kind::kBitmapInUse;
      note.severity = Finding::Severity::kNote;
      note.place = Finding::Place::kBitmapDirectory;
      note.host = it.table;
      note.entry = it.entry;
      note.index = index;
      found(note);
    }
    scan.tables.push_back({it.table, uint64_t{it.table_entries} * 8, index, it.in_use()});
    ++index;
  }
  if (parsed.fault) {
    Finding it{};
    it.kind = Finding::Kind::kBitmapDirectoryUnusable;
    it.severity = Finding::Severity::kCheckError;
    it.place = Finding::Place::kBitmapDirectory;
    it.host = scan.directory;
    it.entry = parsed.fault->entry;
    it.index = parsed.fault->index;
    found(it);
    scan.complete = false;
  }
  return scan;
}

}  // namespace vc::qcow2
