#include "copy/source/any_source.h"

#include <unistd.h>

#include "nbd/uri.h"

namespace vc::copy {

Result<std::optional<nbd::NbdTarget>> nbd_target(const std::string& name,
                                                 const std::vector<std::string>& command) {
  if (!command.empty()) return std::optional(nbd::NbdTarget{"", command, ""});
  ASSIGN_OR_RETURN(const bool is_nbd, nbd::is_nbd_uri(name));
  if (!is_nbd) return std::optional<nbd::NbdTarget>{};
  return std::optional(nbd::NbdTarget{name, {}, ""});
}

Result<AnySource> AnySource::open(const Options& options, const Stop& stop) {
  AnySource source;
  ASSIGN_OR_RETURN(auto target, nbd_target(options.name, options.command));
  if (options.salvage && (target || options.name == "-"))
    return fail(Error::invalid(
        "--salvage: SRC must be a file: run the command on the machine of the server"));
  if (options.command.empty() && options.name == "-") {
    if (options.format == qcow2::Format::kQcow2 || !options.snapshot.empty())
      return fail(Error::invalid(
          "standard input: a QCOW2 image cannot be read from a pipe: give its path"));
    const bool any_content = options.format == qcow2::Format::kRaw;
    ASSIGN_OR_RETURN(source.stream_,
                     StreamSource::open(STDIN_FILENO, "standard input", any_content, stop));
    return source;
  }
  if (!target) {
    ASSIGN_OR_RETURN(
        source.local_,
        LocalSource::open(options.name, {options.format, options.snapshot, options.force_share,
                                         options.trust, options.salvage}));
    return source;
  }
  if (options.format == qcow2::Format::kQcow2)
    return fail(Error::unsupported(target->name() +
                                   ": a QCOW2 file behind NBD is not decoded: serve it with "
                                   "the nbdkit qcow2 plugin, or with --filter=qcow2"));
  // Export names of the nbdkit qcow2 plugin and filter.
  if (!options.snapshot.empty()) target->export_name = "snapshot:" + options.snapshot;
  ASSIGN_OR_RETURN(source.nbd_, NbdSource::open(*target, options.nbd, stop));
  return source;
}

AnySource AnySource::of(std::unique_ptr<LocalSource> local) {
  AnySource source;
  source.local_ = std::move(local);
  return source;
}

Source& AnySource::get() const {
  if (local_) return *local_;
  if (nbd_) return *nbd_;
  return *stream_;
}

}  // namespace vc::copy
