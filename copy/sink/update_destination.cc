#include "copy/sink/update_destination.h"
#include "qcow2/write/chain_writer.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::copy {

using Kind = Chunk::Cluster::Kind;

class UpdateDestination::UpdateSink final : public Sink {
 public:
  explicit UpdateSink(qcow2::DiskWriter& writer) : writer_(writer) {}

  const qcow2::Geometry& geometry() const override { return writer_.image().geometry(); }
  Result<void> place(Chunk& /*chunk*/) override { return {}; }

  Result<void> write(const Chunk& chunk) override {
    const uint64_t cluster_size = geometry().cluster_size();
    const uint64_t length = chunk.end() - chunk.begin();
    for (size_t i = 0; i < chunk.clusters.size();) {
      const Kind kind = chunk.clusters[i].kind;
      size_t end = i + 1;
      while (end < chunk.clusters.size() && chunk.clusters[end].kind == kind) ++end;
      const uint64_t from = i * cluster_size;
      const uint64_t to = std::min(end * cluster_size, length);
      const GuestOffset at = chunk.begin() + from;
      if (kind == Kind::kData)
        RETURN_IF_ERROR(writer_.write(at, chunk.bytes.span().subspan(from, to - from)));
      else if (kind != Kind::kHole)
        RETURN_IF_ERROR(writer_.zero(at, to - from, true));
      i = end;
    }
    return {};
  }

  Result<void> finish() override { return {}; }

 private:
  qcow2::DiskWriter& writer_;
};

Result<std::unique_ptr<UpdateDestination>> UpdateDestination::open(
    const std::string& path, uint64_t size, std::shared_ptr<const crypto::KeyRing> keys) {
  qcow2::OpenOptions how;
  how.format = qcow2::Format::kQcow2;
  how.writable = true;
  how.trust.keys = std::move(keys);
  ASSIGN_OR_RETURN(qcow2::Chain chain, qcow2::Chain::open(path, how));
  std::unique_ptr<UpdateDestination> it(new UpdateDestination(std::move(chain)));
  ASSIGN_OR_RETURN(it->writer_, qcow2::open_writer(it->chain_, {}));
  if (it->writer_->size() != size)
    return fail(Error::invalid(fmt::format(
        "{}: is not an earlier copy of this disk: it has {} bytes, and the source has {}", path,
        it->writer_->size(), size)));
  it->sink_ = std::make_unique<UpdateSink>(*it->writer_);
  return it;
}

Result<std::optional<FileSize>> UpdateDestination::measure() {
  FileSize size;
  ASSIGN_OR_RETURN(size.length, chain_.files().front()->size());
  ASSIGN_OR_RETURN(size.blocks, chain_.files().front()->blocks());
  return std::optional(size);
}

}  // namespace vc::copy
