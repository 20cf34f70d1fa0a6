#include "copy/destination_type.h"

#include <sys/stat.h>
#include <unistd.h>

#include "base/retry.h"
#include "copy/source/open_source.h"
#include "qcow2/format/header.h"
#include "storage/file_storage.h"

namespace vc::copy {

using qcow2::Format;

namespace {

// Default size of holes in raw destinations: a page in a file; on a server, enough zeros to be
// worth a request.
constexpr uint64_t kFileHole = 4 << 10;
constexpr uint64_t kServerHole = 64 << 10;

Result<void> check_not_read(const Source& source, const std::string& destination) {
  struct stat status {};
  const bool standard_output = destination == "-";
  if ((standard_output ? retry(::fstat, STDOUT_FILENO, &status)
                       : retry(::stat, destination.c_str(), &status)) != 0)
    return {};
  // A pipe cannot be a file of the source.
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return {};
  const auto identity = S_ISBLK(status.st_mode)
                            ? FileStorage::Identity{status.st_rdev, 0}
                            : FileStorage::Identity{status.st_dev, status.st_ino};
  for (const auto& file : source.files())
    if (file->identity() == identity)
      return fail(
          Error::invalid((standard_output ? "standard output" : destination) +
                         (file->name() == destination || file == source.files().front()
                              ? ": source and destination are the same file"
                              : ": the source reads from this file (as " + file->name() + ")")));
  return {};
}

Result<void> check_format(const CopyOptions& options, const DestinationType& type) {
  using Kind = DestinationType::Kind;
  if (type.kind == Kind::kDevice && !options.format)
    return fail(Error::invalid(options.destination +
                               ": is a block device: choose what to write with -O raw (the "
                               "disk itself) or -O qcow2 (an image)"));
  if (type.kind == Kind::kServer && type.format == Format::kQcow2)
    return fail(Error::unsupported(type.server->name() +
                                   ": a QCOW2 image cannot be created behind NBD: serve an image "
                                   "with the nbdkit qcow2 plugin, and copy the disk into it"));
  if (type.format == Format::kRaw && options.compression)
    return fail(Error::invalid("compression needs QCOW2: a raw disk cannot be compressed"));
  return {};
}

Result<void> check_update(const CopyOptions& options, DestinationType::Kind kind) {
  using Kind = DestinationType::Kind;
  if (!options.is_update()) return {};
  if (options.compression)
    return fail(
        Error::invalid("--bitmap: data that is written into an earlier copy cannot be compressed"));
  if (options.verify)
    return fail(Error::invalid(
        "--bitmap and --verify: unchanged ranges are not read, so they cannot be compared"));
  if (kind != Kind::kFile && kind != Kind::kServer)
    return fail(Error::invalid(
        "--bitmap: DST must be an earlier copy: a QCOW2 image or the disk of a server"));
  return {};
}

}  // namespace

Result<DestinationType> DestinationType::probe(const CopyOptions& options) {
  const std::string& name = options.destination;
  DestinationType type;
  ASSIGN_OR_RETURN(type.server,
                   nbd_target(name == "null:" ? "" : name, options.destination_command));
  struct stat status {};
  if (type.server) {
    type.kind = Kind::kServer;
  } else if (name == "-") {
    type.kind = Kind::kStream;
  } else if (name == "null:") {
    type.kind = Kind::kNull;
  } else if (retry(::stat, name.c_str(), &status) == 0 && S_ISBLK(status.st_mode)) {
    type.kind = Kind::kDevice;
  }
  const bool raw = type.kind == Kind::kServer || type.kind == Kind::kNull;
  type.format = options.format.value_or(raw ? Format::kRaw : Format::kQcow2);
  RETURN_IF_ERROR(check_format(options, type));
  RETURN_IF_ERROR(check_update(options, type.kind));
  if (options.verify && (type.kind == Kind::kStream || type.kind == Kind::kNull))
    return fail(Error::invalid("--verify: data that was sent to a pipe cannot be read again"));
  // Zeros may be written before anything is read. Different names of one disk are not detected.
  if (type.server && !type.server->uri.empty() && type.server->uri == options.source)
    return fail(Error::invalid(name + ": source and destination are the same"));
  return type;
}

Result<void> check_not_source(const CopyOptions& options, const DestinationType& destination,
                              const Source& source) {
  if (source.files().empty()) return {};
  const std::string& name = options.destination;
  RETURN_IF_ERROR(check_not_read(source, name));
  if (destination.kind != DestinationType::Kind::kFile || options.image.data_file.empty())
    return {};
  ASSIGN_OR_RETURN(const std::string data,
                   with_context(qcow2::resolve_name(name, options.image.data_file), "data file"));
  return with_context(check_not_read(source, data), "data file");
}

uint64_t hole_size(const CopyOptions& options, bool on_server) {
  if (options.sparse_size != 0) return options.sparse_size;
  return on_server ? kServerHole : kFileHole;
}

Result<uint64_t> update_unit(const CopyOptions& options) {
  ASSIGN_OR_RETURN(const auto server, nbd_target(options.destination, options.destination_command));
  if (server) return hole_size(options, true);
  ASSIGN_OR_RETURN(const auto file, FileStorage::open_readonly(options.destination));
  ASSIGN_OR_RETURN(const auto header,
                   with_context(qcow2::Header::read(*file, qcow2::Header::Purpose::kUnlock),
                                options.destination));
  return header.geometry().cluster_size();
}

}  // namespace vc::copy
