#include "qcow2/format/structures.h"

namespace vc::qcow2 {

const char* to_string(Structure structure) {
  switch (structure) {
    case Structure::kHeader:
      return "header";
    case Structure::kL1Table:
      return "L1 table";
    case Structure::kL2Table:
      return "L2 table";
    case Structure::kRefcountTable:
      return "refcount table";
    case Structure::kRefcountBlock:
      return "refcount block";
    case Structure::kSnapshotTable:
      return "snapshot table";
    case Structure::kSnapshotL1Table:
      return "L1 table of a snapshot";
    case Structure::kEncryptionHeader:
      return "LUKS header";
    case Structure::kBitmapDirectory:
      return "directory of bitmaps";
    case Structure::kBitmapTable:
      return "table of a bitmap";
  }
  return "";
}

const char* with_article(Structure structure) {
  switch (structure) {
    case Structure::kHeader:
      return "the header";
    case Structure::kL1Table:
      return "the L1 table";
    case Structure::kL2Table:
      return "an L2 table";
    case Structure::kRefcountTable:
      return "the refcount table";
    case Structure::kRefcountBlock:
      return "a refcount block";
    case Structure::kSnapshotTable:
      return "the snapshot table";
    case Structure::kSnapshotL1Table:
      return "the L1 table of a snapshot";
    case Structure::kEncryptionHeader:
      return "the LUKS header";
    case Structure::kBitmapDirectory:
      return "the directory of bitmaps";
    case Structure::kBitmapTable:
      return "the table of a bitmap";
  }
  return "";
}

}  // namespace vc::qcow2
