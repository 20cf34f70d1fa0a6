#include "tests/qcow2/relocate/relocation.h"

#include "qcow2/relocate/image_shrink.h"
#include "tests/catch_text.h"

namespace vc::test {

void shrink(const std::shared_ptr<Storage>& storage) {
  const auto it = qcow2::ImageShrink::open(storage, nullptr, nullptr, {});
  REQUIRE_OK(it);
  REQUIRE_OK((*it)->run({}));
}

}  // namespace vc::test
