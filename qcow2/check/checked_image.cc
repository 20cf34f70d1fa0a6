#include "qcow2/check/checked_image.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace vc::qcow2 {

namespace {

constexpr unsigned kMostThreads = 64;

}  // namespace

Result<CheckedImage> CheckedImage::open(const Storage& storage, const CheckOptions& options) {
  ASSIGN_OR_RETURN(const uint64_t file_size, storage.size());
  ASSIGN_OR_RETURN(Header header, Header::read(storage, Header::Purpose::kCheck));
  const Geometry geometry = header.geometry();
  CheckOptions completed = options;
  if (completed.threads == 0) completed.threads = std::thread::hardware_concurrency();
  completed.threads = std::clamp(completed.threads, 1u, kMostThreads);
  return CheckedImage{storage,  completed, std::move(header),
                      geometry, file_size, geometry.clusters_for(file_size)};
}

}  // namespace vc::qcow2
