#include "copy/pipeline/placer.h"

namespace vc::copy {

Result<std::vector<Chunk*>> Placer::complete(Chunk* chunk) {
  std::vector<Chunk*> placed;
  const MutexLock lock(mutex_);
  early_.emplace(chunk->sequence, chunk);
  for (auto it = early_.begin(); it != early_.end() && it->first == next_;
       it = early_.erase(it), ++next_) {
    RETURN_IF_ERROR(sink_.place(*it->second));
    placed.push_back(it->second);
  }
  return placed;
}

}  // namespace vc::copy
