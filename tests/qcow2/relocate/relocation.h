// Steps of a relocation that several tests take.
#pragma once

#include <cstdint>
#include <memory>

#include "storage/storage.h"
#include "tests/support/random.h"

namespace vc::test {

// Returns options for small batches and windows, so that there are many.
template <typename Options>
Options small_batches(support::Random& random, unsigned cluster_bits) {
  Options options;
  options.threads = 2;
  options.batch_bytes = random.between(1, 30) << cluster_bits;
  options.most_pointers = random.between(300, 2000);
  return options;
}

// Makes an image as short as possible.
void shrink(const std::shared_ptr<Storage>& storage);

}  // namespace vc::test
