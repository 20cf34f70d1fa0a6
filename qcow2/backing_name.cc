#include "qcow2/backing_name.h"

#include <algorithm>
#include <array>
#include <vector>

#include "qcow2/header.h"

namespace qcow2 {

namespace {

constexpr size_t kSector = 512;
constexpr size_t kNameFields = 8;  // offset, 8 bytes, and length, 4 bytes
constexpr size_t kNameFieldBytes = 12;

}  // namespace

Result<void> drop_backing_name(Storage& storage) {
  ASSIGN_OR_RETURN(Header header, Header::read(storage));
  if (header.backing_file.empty()) return {};
  header.backing_file.clear();
  std::erase_if(header.extensions, [](const HeaderExtension& it) {
    return it.type == HeaderExtension::kBackingFormat;
  });
  ASSIGN_OR_RETURN(std::vector<std::byte> sector, header.encode());
  if (sector.size() > kSector) {
    sector.assign(kSector, std::byte{0});
    RETURN_IF_ERROR(read_fully(storage, HostOffset(0), sector));
    std::fill_n(sector.begin() + kNameFields, kNameFieldBytes, std::byte{0});
  }
  sector.resize(kSector);
  RETURN_IF_ERROR(storage.flush());
  RETURN_IF_ERROR(storage.write(HostOffset(0), sector));
  return storage.flush();
}

}  // namespace qcow2
