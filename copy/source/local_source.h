// An image file, or a chain of image files, read in this process.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "copy/source/overlay_map.h"
#include "copy/source/source.h"
#include "copy/source/unused_space.h"
#include "qcow2/read/chain.h"
#include "qcow2/read/disk.h"
#include "qcow2/read/file_holes.h"

namespace vc::copy {

class LocalSource final : public Source {
 public:
  struct Options {
    std::optional<qcow2::Format> format = {};  // nullopt: probe the content
    std::string snapshot = {};                 // by ID or name; empty: current disk
    bool force_share = false;                  // even if another process writes to the file
    qcow2::Trust trust = {};
    bool salvage = false;        // unreadable data becomes zeros; see losses()
    bool metadata_only = false;  // see qcow2::OpenOptions
  };
  static Result<std::unique_ptr<LocalSource>> open(const std::string& path, const Options& options);
  // Returns the disk of a snapshot of the chain's image.
  static Result<std::unique_ptr<LocalSource>> of_snapshot(const qcow2::Chain& chain,
                                                          const qcow2::Snapshot& snapshot);

  void leave_out(const std::shared_ptr<const guest::Ranges>& unused) override {
    unused_ = UnusedSpace(unused, 1);
  }

  const std::string& name() const override { return name_; }
  uint64_t size() const override { return disk_.size(); }
  std::optional<uint64_t> cluster_size() const override;
  Result<void> map(GuestOffset at, uint64_t length, std::vector<qcow2::Extent>& out) override;
  Result<void> read(GuestOffset at, std::span<std::byte> to) override { return disk_.read(at, to); }
  Result<void> load(Chunk& chunk, ClusterReader& reader) override;
  Result<void> read_extent(size_t /*index*/, const qcow2::Extent& extent,
                           std::span<std::byte> to) override {
    return disk_.read_extent(extent, extent.guest, to);
  }
  std::optional<qcow2::Layer::StreamFormat> compression(
      const qcow2::Extent& extent) const override {
    return disk_.layers()[extent.depth]->compression();
  }
  std::optional<FileStorage::Identity> file_of(const qcow2::Extent& extent) const override {
    const FileStorage* const file = plain_file(extent.depth);
    return file ? std::optional(file->identity()) : std::nullopt;
  }
  const FileStorage* plain_file(uint32_t depth) const override {
    return depth < plain_files_.size() ? plain_files_[depth] : nullptr;
  }
  const qcow2::Losses* losses() const override { return losses_.get(); }
  bool is_cheap_to_reread() const override { return true; }

  std::span<const std::shared_ptr<FileStorage>> files() const override { return chain_.files(); }
  const qcow2::Image* image() const override { return chain_.image().get(); }
  const qcow2::Layer* layer(uint32_t depth) const override {
    return disk_.layers().at(depth).get();
  }
  Result<void> map_stored(GuestOffset at, uint64_t length,
                          std::vector<qcow2::Extent>& out) override;
  Result<std::optional<FileSize>> replaced_size() const override;
  std::optional<EncryptedData> encrypted_data() const override;
  // See OverlayMap.
  Result<std::string> keep_backing(const std::string& base, uint64_t unit) override;

  const qcow2::Chain& chain() const { return chain_; }
  // Thread-safe for reading.
  const qcow2::Disk& disk() const { return disk_; }

 private:
  LocalSource(std::string name, qcow2::Chain chain, qcow2::Disk disk)
      : name_(std::move(name)), chain_(std::move(chain)), disk_(std::move(disk)) {
    find_files();
  }
  void find_files();

  std::string name_;
  qcow2::Chain chain_;
  qcow2::Disk disk_;
  std::vector<const FileStorage*> plain_files_;  // of each layer; see plain_file()
  std::shared_ptr<qcow2::Losses> losses_;
  std::optional<OverlayMap> overlay_;
  std::optional<FileStorage::Identity> kept_;  // the backing file that a copy keeps
  qcow2::FileHoles holes_;
  UnusedSpace unused_;
};

}  // namespace vc::copy
