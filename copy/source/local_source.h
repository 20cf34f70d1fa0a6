// An image file, or a chain of them, read in this process.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "copy/source/overlay_map.h"
#include "copy/source/source.h"
#include "copy/source/unused_space.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/file_holes.h"

namespace copy {

class LocalSource final : public Source {
 public:
  struct Options {
    std::optional<qcow2::Format> format = {};  // nothing: the content decides
    std::string snapshot = {};                 // by id or name; empty: the disk as it is now
    bool force_share = false;                  // even if somebody writes to it
    qcow2::Trust trust = {};
    bool salvage = false;  // what cannot be read is zeros, and in losses ()
  };
  static qcow2::Result<std::unique_ptr<LocalSource>> open(const std::string& path,
                                                          const Options& options);

  // From now on the map is that of a copy which keeps `base`, a backing file of this source, with
  // clusters of `unit` bytes: see OverlayMap.  Returns the format of `base`.
  qcow2::Result<std::string> keep_backing(const std::string& base, uint64_t unit);

  // From now on the map says that what is unused reads as zeros.  read () gives its bytes still.
  void leave_out(const std::shared_ptr<const guest::Ranges>& unused) {
    unused_ = UnusedSpace(unused, 1);
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return disk_.size(); }
  std::optional<uint64_t> cluster_size() const override;
  qcow2::Result<void> map(qcow2::GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) override;
  qcow2::Result<void> read(qcow2::GuestOffset at, std::span<std::byte> to) override {
    return disk_.read(at, to);
  }

  // Of a salvage, what could not be read so far; else nullptr.
  const qcow2::Losses* losses() const { return losses_.get(); }

  const qcow2::Chain& chain() const { return chain_; }
  // The files that a copy takes the place of: all, but for a backing file that it keeps and what is
  // behind that.
  std::vector<std::shared_ptr<qcow2::FileStorage>> replaced_files() const;
  // May be read by any number of threads.
  const qcow2::Disk& disk() const { return disk_; }

 private:
  LocalSource(std::string name, qcow2::Chain chain, qcow2::Disk disk)
      : name_(std::move(name)), chain_(std::move(chain)), disk_(std::move(disk)) {}

  std::string name_;
  qcow2::Chain chain_;
  qcow2::Disk disk_;
  std::shared_ptr<qcow2::Losses> losses_;
  std::optional<OverlayMap> overlay_;
  std::optional<qcow2::FileStorage::Identity> kept_;  // the backing file that a copy keeps
  qcow2::FileHoles holes_;
  UnusedSpace unused_;
};

}  // namespace copy
