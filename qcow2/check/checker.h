// Reads all metadata of an image, however damaged, and compares it with the format and with itself.
//
// Opening an Image fails on metadata that violates the format; the checker reports the damage and
// continues.  Counts and categories follow `qemu-img check`, so that both report the same sums; the
// tests contain a table of the differences.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"
#include "qcow2/check/check_tally.h"
#include "qcow2/check/checked_image.h"
#include "qcow2/check/reference_counts.h"
#include "qcow2/format/header.h"
#include "storage/storage.h"

namespace vc::qcow2 {

class Checker {
 public:
  // Reads the header, which must be good enough to find the tables: otherwise returns an error;
  // qemu-img cannot open such an image either.  Accepts images that are encrypted, marked as
  // corrupt, or without a usable refcount table.  `storage` must outlive the checker, which never
  // writes to it.
  static Result<Checker> open(const Storage& storage, const CheckOptions& options);
  Checker(Checker&&) noexcept;
  Checker& operator=(Checker&&) noexcept;
  ~Checker();

  // Returns the header.  Its fields are within limits, except those of the snapshot and refcount
  // tables.
  const Header& header() const;

  // Reports all damage to `observer`.  Returns an error only if the storage is not readable at all,
  // or if the observer cancels.
  Result<CheckSums> run(CheckObserver& observer);

  // Walks all references and passes the resulting counts to `visit`, window by window from cluster
  // 0.  With `with_refcounts`, also counts the clusters of the refcount table and of its blocks;
  // callers that rebuild the refcounts pass false.  In a deep check, compressed clusters are
  // counted by the length of their streams, not by their descriptors.
  using Visit = std::function<Result<void>(const ReferenceCounts& counts)>;
  Result<void> count(bool with_refcounts, CheckObserver& observer, const Visit& visit);

  // Returns the clusters of the file, including a partial last one; references past them are not
  // counted.
  uint64_t clusters() const;

 private:
  class Work;
  explicit Checker(std::unique_ptr<Work> work);
  std::unique_ptr<Work> work_;
};

}  // namespace vc::qcow2
