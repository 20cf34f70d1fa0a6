#include "qcow2/check/check_tally.h"

#include <algorithm>

namespace vc::qcow2 {

namespace {

using Kind = Finding::Kind;
using Severity = Finding::Severity;

// A file may have lost as much as its own length, or this many bytes.
constexpr uint64_t kNearEnd = uint64_t{64} << 30;

// Returns whether this damage may hide existing references.
bool hides_references(const Finding& finding) {
  switch (finding.kind) {
    case Kind::kExtensionLength:
      return finding.index == HeaderExtension::kLuks;
    case Kind::kExtensionMissing:  // only the one of LUKS
    case Kind::kLuksPlace:
    case Kind::kUnreadable:
    case Kind::kReferenceOutside:
    case Kind::kOverlap:
    case Kind::kL2TableUnaligned:
    case Kind::kCompressedInDataFile:
    case Kind::kCompressedBitmap:
    case Kind::kBitmapTableUnusable:
    case Kind::kBitmapTableEntry:
      return true;
    default:
      return false;
  }
}

}  // namespace

CheckTally::CheckTally(const CheckedImage& image, CheckObserver& observer)
    : image_(image), observer_(observer), lost_(image.storage, image.header, image.file_size) {
  // QEMU's disks have whole sectors.
  sums_.total_clusters = image.geometry.clusters_for(image.header.size / Geometry::kSectorSize *
                                                     Geometry::kSectorSize);
}

void CheckTally::report(Finding it, bool any_pass) {
  if (it.kind == Kind::kUnreadable) ++unreadable_;
  if (!first_pass_ && !any_pass) return;
  if (hides_references(it)) sums_.references_unknown = true;
  if (it.kind == Kind::kUnreadable) sums_.unreadable = true;
  if (it.kind == Kind::kReferenceOutside) remember_outside(it);
  if (it.kind == Kind::kOverlap) {
    // If the refcounts disagree, the sums already include the damage.
    const auto recorded = recorded_->get(image_.geometry.host_cluster_of(it.host));
    if (!recorded || !*recorded || **recorded < 2) it.severity = Severity::kNote;
  }
  switch (it.severity) {
    case Severity::kNote:
      break;
    case Severity::kLeak:
      // The references to it may just be unknown.
      if (incomplete_) return;
      sums_.leaks += it.times;
      lost_.add_leak(image_.geometry.host_cluster_of(it.host), it.times, it.expected);
      break;
    case Severity::kCorruption:
      sums_.corruptions += it.times;
      break;
    case Severity::kCheckError:
      sums_.check_errors += it.times;
      break;
  }
  observer_.found(it);
}

void CheckTally::report_unreadable(Finding::Place place, HostOffset at) {
  Finding it{};
  it.kind = Kind::kUnreadable;
  it.severity = Severity::kCheckError;
  it.place = place;
  it.host = at;
  report(it);
}

void CheckTally::refcounts_unusable() {
  sums_.needs_rebuild = true;
  sums_.refcounts_unusable = true;
}

void CheckTally::report_lost() {
  sums_.references_damaged = sums_.references_unknown;
  if (lost_.judge(sums_.needs_rebuild, sums_.references_unknown,
                  [this](const Finding& it) { observer_.found(it); }))
    sums_.references_unknown = sums_.references_lost = true;
}

void CheckTally::remember_outside(const Finding& it) {
  const uint64_t limit = image_.file_size + std::max(image_.file_size, kNearEnd);
  const uint64_t length = it.found;
  if (length > limit || it.host.value() > limit - length) return;
  sums_.end_of_outside =
      std::max(sums_.end_of_outside, image_.geometry.clusters_for(it.host.value() + length));
}

void CheckTally::progress(uint64_t bytes) {
  if (!first_pass_) return;
  done_ += bytes;
  observer_.progress(done_, total_);
}

Result<void> CheckTally::go_on() {
  if (observer_.cancelled()) return fail(Error::cancelled());
  return {};
}

}  // namespace vc::qcow2
