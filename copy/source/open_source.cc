#include "copy/source/open_source.h"

#include <unistd.h>

#include "copy/source/local_source.h"
#include "copy/source/stream_source.h"
#include "nbd/uri.h"

namespace vc::copy {

Result<std::optional<nbd::NbdTarget>> nbd_target(const std::string& name,
                                                 const std::vector<std::string>& command) {
  if (!command.empty()) return std::optional(nbd::NbdTarget{"", command, ""});
  ASSIGN_OR_RETURN(const bool is_nbd, nbd::is_nbd_uri(name));
  if (!is_nbd) return std::optional<nbd::NbdTarget>{};
  return std::optional(nbd::NbdTarget{name, {}, ""});
}

Result<std::unique_ptr<Source>> open_source(const SourceOptions& options, const Stop& stop) {
  ASSIGN_OR_RETURN(auto target, nbd_target(options.name, options.command));
  if (options.salvage && (target || options.name == "-"))
    return fail(Error::invalid(
        "--salvage: SRC must be a file: run the command on the machine of the server"));
  if (options.command.empty() && options.name == "-") {
    if (options.format == qcow2::Format::kQcow2 || !options.snapshot.empty())
      return fail(Error::invalid(
          "standard input: a QCOW2 image cannot be read from a pipe: give its path"));
    const bool any_content = options.format == qcow2::Format::kRaw;
    ASSIGN_OR_RETURN(std::unique_ptr<Source> stream,
                     StreamSource::open(STDIN_FILENO, "standard input", any_content, stop));
    return stream;
  }
  if (!target) {
    ASSIGN_OR_RETURN(
        std::unique_ptr<Source> local,
        LocalSource::open(options.name, {options.format, options.snapshot, options.force_share,
                                         options.trust, options.salvage, options.metadata_only}));
    return local;
  }
  if (options.format == qcow2::Format::kQcow2)
    return fail(Error::unsupported(target->name() +
                                   ": a QCOW2 file behind NBD is not decoded: serve it with "
                                   "the nbdkit qcow2 plugin, or with --filter=qcow2"));
  // Export names of the nbdkit qcow2 plugin and filter.
  if (!options.snapshot.empty()) target->export_name = "snapshot:" + options.snapshot;
  ASSIGN_OR_RETURN(std::unique_ptr<Source> server, NbdSource::open(*target, options.nbd, stop));
  return server;
}

}  // namespace vc::copy
