#include "qcow2/write/backing_name.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/byte_order.h"
#include "base/rounding.h"
#include "qcow2/format/header.h"
#include "qcow2/format/header_fields.h"

namespace vc::qcow2 {

namespace {

Result<void> write_sector(Storage& storage, std::vector<std::byte> sector) {
  sector.resize(Geometry::kSectorSize);
  RETURN_IF_ERROR(storage.flush());
  RETURN_IF_ERROR(storage.write(HostOffset(0), sector));
  return storage.flush();
}

void erase_extension(Header& header, uint32_t type) {
  std::erase_if(header.extensions, [&](const HeaderExtension& it) { return it.type == type; });
}

void set_format(Header& header, const std::string& format) {
  erase_extension(header, HeaderExtension::kBackingFormat);
  HeaderExtension extension{HeaderExtension::kBackingFormat, {}};
  const auto bytes = std::as_bytes(std::span(format));
  extension.data.assign(bytes.begin(), bytes.end());
  header.extensions.insert(header.extensions.begin(), std::move(extension));
}

// Returns the end of the used part of the first cluster: past the header's extensions and its name.
Result<uint64_t> end_of_header(const Storage& storage, Header header) {
  std::array<std::byte, header_field::kBackingName + header_field::kBackingNameFields> start{};
  RETURN_IF_ERROR(read_fully(storage, HostOffset(0), start));
  header.backing_file.clear();
  ASSIGN_OR_RETURN(const auto extensions, header.encode());
  const uint64_t name_end = load_be64(&start[header_field::kBackingName]) +
                            load_be32(&start[header_field::kBackingNameLength]);
  return std::max<uint64_t>({Geometry::kSectorSize, extensions.size(), name_end});
}

}  // namespace

Result<void> drop_backing_name(Storage& storage) {
  ASSIGN_OR_RETURN(Header header, Header::read(storage, Header::Purpose::kUnlock));
  if (header.backing_file.empty()) return {};
  header.backing_file.clear();
  erase_extension(header, HeaderExtension::kBackingFormat);
  ASSIGN_OR_RETURN(std::vector<std::byte> sector, header.encode());
  if (sector.size() > Geometry::kSectorSize) {
    sector.assign(Geometry::kSectorSize, std::byte{0});
    RETURN_IF_ERROR(read_fully(storage, HostOffset(0), sector));
    std::fill_n(sector.begin() + header_field::kBackingName, header_field::kBackingNameFields,
                std::byte{0});
  }
  return write_sector(storage, std::move(sector));
}

Result<void> set_backing_name(Storage& storage, const std::string& name,
                              const std::string& format) {
  ASSIGN_OR_RETURN(Header header, Header::read(storage, Header::Purpose::kUnlock));
  ASSIGN_OR_RETURN(const uint64_t used, end_of_header(storage, header));
  if (name.size() > Limits::kBackingNameBytes)
    return fail(Error::invalid(fmt::format("the name has {} bytes: {} are allowed", name.size(),
                                           Limits::kBackingNameBytes)));
  const uint64_t cluster_size = uint64_t{1} << header.cluster_bits;
  header.backing_file.clear();
  set_format(header, format);
  ASSIGN_OR_RETURN(std::vector<std::byte> sector, header.encode());
  if (sector.size() > Geometry::kSectorSize) {
    erase_extension(header, HeaderExtension::kFeatureNames);
    ASSIGN_OR_RETURN(sector, header.encode());
  }
  if (sector.size() > Geometry::kSectorSize)
    return fail(Error::unsupported(
        fmt::format("the header has {} bytes of extensions: it cannot be changed in one write",
                    sector.size())));
  const uint64_t end = sector.size();
  const bool inside = end + name.size() <= Geometry::kSectorSize;
  const uint64_t at = inside ? end : round_up(used, 8);
  if (at + name.size() > cluster_size)
    return fail(Error::unsupported(
        fmt::format("the first cluster, of {} bytes, has no space for a name of {}", cluster_size,
                    name.size())));
  sector.resize(Geometry::kSectorSize);
  const auto bytes = std::as_bytes(std::span(name));
  if (inside)
    std::copy(bytes.begin(), bytes.end(), sector.begin() + static_cast<ptrdiff_t>(at));
  else
    RETURN_IF_ERROR(storage.write(HostOffset(at), bytes));
  store_be64(&sector[header_field::kBackingName], at);
  store_be32(&sector[header_field::kBackingNameLength], static_cast<uint32_t>(name.size()));
  return write_sector(storage, std::move(sector));
}

}  // namespace vc::qcow2
