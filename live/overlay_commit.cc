#include "live/overlay_commit.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "qcow2/read/chain.h"
#include "qcow2/write/chain_writer.h"
#include "storage/file_storage.h"

namespace vc::live {

namespace {

constexpr uint64_t kPiece = 2 << 20;  // bytes

// Returns an error if the image at `path` has another backing file than `base`.
Result<void> check_backing(const LiveFolder& folder, const std::string& path,
                           const qcow2::Chain& chain, const std::string& base) {
  const std::string& named = chain.image() ? chain.image()->header().backing_file : path;
  ASSIGN_OR_RETURN(const std::string backing, qcow2::resolve_name(path, named));
  if (folder.is(backing, base)) return {};
  return fail(Error::invalid(
      fmt::format("{}: has the backing file '{}', not {}: inspect both files before you continue",
                  path, backing, folder.path_to(base))));
}

Result<void> put(qcow2::DiskWriter& writer, const qcow2::Layer& layer, const qcow2::Extent& extent,
                 std::vector<std::byte>& buffer) {
  if (extent.kind == qcow2::ExtentKind::kZero)
    return writer.zero(extent.guest, extent.length, true);
  for (uint64_t done = 0; done < extent.length;) {
    const std::span<std::byte> piece =
        std::span(buffer).first(std::min<uint64_t>(kPiece, extent.length - done));
    RETURN_IF_ERROR(layer.read(extent, extent.guest + done, piece));
    RETURN_IF_ERROR(writer.write(extent.guest + done, piece));
    done += piece.size();
  }
  return {};
}

Result<void> put_all(qcow2::DiskWriter& writer, const qcow2::Layer& layer, Progress& progress,
                     const Cancel& cancel) {
  std::vector<std::byte> buffer(kPiece);
  for (GuestOffset at(0); at.value() < layer.size();) {
    if (cancel.requested()) return fail(Error::cancelled());
    ASSIGN_OR_RETURN(const qcow2::Extent extent, layer.map(at, layer.size() - at.value()));
    if (extent.kind != qcow2::ExtentKind::kUnallocated)
      RETURN_IF_ERROR(put(writer, layer, extent, buffer));
    at = extent.end();
    progress.update(at.value(), layer.size());
  }
  return {};
}

}  // namespace

Result<void> commit_overlay(const LiveFolder& folder, const std::string& overlay,
                            const std::string& base, Progress& progress, const Cancel& cancel) {
  const std::string path = folder.path_to(overlay);
  // No guest can start on the overlay meanwhile.
  ASSIGN_OR_RETURN(const auto locked, FileStorage::open_readonly_in(folder.directory(), overlay));
  RETURN_IF_ERROR(locked->lock(ImageClaim::writing(), "shut down the guest that uses it"));
  qcow2::OpenOptions above;
  above.format = qcow2::Format::kQcow2;
  above.force_share = true;
  // Only the layer of the overlay itself is read.
  above.trust.names.backing = qcow2::NameRule::kLeaveOut;
  above.trust.names.data_file = qcow2::NameRule::kDeny;
  ASSIGN_OR_RETURN(const auto top, qcow2::Chain::open(path, above));
  RETURN_IF_ERROR(check_backing(folder, path, top, base));

  qcow2::OpenOptions below;
  below.format = qcow2::Format::kQcow2;
  below.writable = true;
  ASSIGN_OR_RETURN(const auto chain, qcow2::Chain::open(folder.path_to(base), below));
  ASSIGN_OR_RETURN(const auto writer, qcow2::open_writer(chain, {}));
  if (writer->size() != top.layers().front()->size()) {
    (void)writer->close();
    return fail(Error::unsupported(fmt::format(
        "{}: was resized meanwhile: write its content into {} with qemu-img commit, and let the "
        "definition of the domain name {} again",
        path, folder.path_to(base), folder.path_to(folder.disk()))));
  }
  auto done = put_all(*writer, *top.layers().front(), progress, cancel);
  auto closed = writer->close();
  RETURN_IF_ERROR(done);
  return closed;
}

}  // namespace vc::live
