#include "tool/options/sparsify_options.h"

#include <sys/stat.h>

#include "tool/options/arguments.h"

namespace vc::tool {

void add_refused_option(CLI::App& app, const std::string& name, bool takes_value,
                        const std::string& why) {
  const std::string message = name + ": " + why;
  CLI::Option* const option =
      takes_value ? app.add_option_function<std::string>(
                        name, [message](const std::string&) { throw UsageError(message); })
                  : app.add_flag_callback(name, [message] { throw UsageError(message); });
  option->group(kHiddenOptions);
}

void refuse_zero_option(CLI::App& app) {
  add_refused_option(app, "--zero", true,
                     "would destroy the content of a filesystem: do that separately, for example "
                     "with guestfish (zero-device), and then run this command");
}

Result<std::string> parse_temporary_folder(const std::string& text) {
  struct stat status {};
  if (::stat(text.c_str(), &status) != 0 || !S_ISDIR(status.st_mode))
    return fail(Error::invalid(text + ": is not a folder"));
  return text;
}

}  // namespace vc::tool
