// A source of any type, opened by name.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/stop.h"
#include "copy/source/local_source.h"
#include "copy/source/nbd_source.h"
#include "copy/source/stream_source.h"
#include "nbd/target.h"
#include "qcow2/read/chain.h"

namespace vc::copy {

class AnySource {
 public:
  struct Options {
    std::string name;  // a path, an NBD URI, or "-"; unused with a command
    std::vector<std::string> command;
    std::optional<qcow2::Format> format;
    std::string snapshot;
    bool force_share = false;
    qcow2::Trust trust;    // files only
    bool salvage = false;  // see LocalSource; an error for other sources
    NbdSource::Options nbd;
  };

  // `stop` must outlive the source.
  static Result<AnySource> open(const Options& options, const Stop& stop);
  static AnySource of(std::unique_ptr<LocalSource> source);

  Source& get() const;
  // Each returns nullptr if the source has another type.
  LocalSource* local() const { return local_.get(); }
  NbdSource* nbd() const { return nbd_.get(); }
  StreamSource* stream() const { return stream_.get(); }

 private:
  std::unique_ptr<LocalSource> local_;  // exactly one of the three is set
  std::unique_ptr<NbdSource> nbd_;
  std::unique_ptr<StreamSource> stream_;
};

// Returns the server that a name or command refers to. Returns nullopt if it is a path.
Result<std::optional<nbd::NbdTarget>> nbd_target(const std::string& name,
                                                 const std::vector<std::string>& command);

}  // namespace vc::copy
