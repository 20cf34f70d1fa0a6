// Where guest bytes come from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "qcow2/extent.h"
#include "qcow2/layer.h"
#include "qcow2/offset.h"
#include "qcow2/result.h"

namespace copy {

class Source {
 public:
  virtual ~Source() = default;

  virtual const std::string& name() const = 0;
  // Of the virtual disk, bytes.
  virtual uint64_t size() const = 0;

  // Appends extents that cover [at, at + length), or at least a first part of it; see
  // qcow2::Disk::map.  One thread at a time.
  virtual qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                                  std::vector<qcow2::Extent>& out) = 0;

  // The shape of this source's own clusters, if it has any.
  virtual std::optional<uint64_t> cluster_size() const = 0;
};

}  // namespace copy
