#include "qcow2/build/create_image.h"

#include <sys/stat.h>

#include <cerrno>

#include "base/retry.h"
#include "storage/output_file.h"

namespace vc::qcow2 {

Result<Descriptor> create_image(const std::string& path, const BuildOptions& options) {
  struct stat status {};
  if (retry(::lstat, path.c_str(), &status) == 0)
    return fail(Error::system(EEXIST, path + ": cannot create the image"));
  ASSIGN_OR_RETURN(const auto file, OutputFile::create(path, false));
  ASSIGN_OR_RETURN(const auto builder, with_context(Builder::create(*file, options), path));
  RETURN_IF_ERROR(builder->finish());
  ASSIGN_OR_RETURN(Descriptor image, file->share());
  RETURN_IF_ERROR(file->commit());
  return image;
}

}  // namespace vc::qcow2
