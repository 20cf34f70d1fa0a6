#include "optimize/own_files.h"

namespace vc::optimize {

std::string name_beside(const std::string& path, const char* ending) {
  const size_t slash = path.rfind('/');
  const size_t name = slash == std::string::npos ? 0 : slash + 1;
  return path.substr(0, name) + "." + path.substr(name) + ending;
}

}  // namespace vc::optimize
