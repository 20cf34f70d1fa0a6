// The source of a copy: opened as the options say, with free space left out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/cancel.h"
#include "base/stop.h"
#include "copy/copy_options.h"
#include "copy/source/free_space.h"
#include "copy/source/source.h"

namespace vc::copy {

class CopySource {
 public:
  // `options` and `stop` must outlive the source.
  static Result<CopySource> open(const CopyOptions& options, const Cancel& cancel,
                                 const Stop& stop);

  Source& get() const { return *source_; }
  // Returns what CopyOptions::skip_free found. nullopt without it.
  const std::optional<FreeSpace>& free_space() const { return free_space_; }

  // Returns the parts of the disk that read as zeros in the copy. nullptr: none.
  const std::shared_ptr<const guest::Ranges>& unused() const { return unused_; }
  // Replaces these parts.
  void leave_out(std::shared_ptr<const guest::Ranges> unused);

  // Replaces the source by CopyOptions::late, which may wait. Returns an error if it has another
  // size.
  Result<void> open_late();

 private:
  explicit CopySource(const CopyOptions& options) : options_(&options) {}

  const CopyOptions* options_;
  std::unique_ptr<Source> source_;
  std::optional<FreeSpace> free_space_;
  std::shared_ptr<const guest::Ranges> unused_;
};

}  // namespace vc::copy
