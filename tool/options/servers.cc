#include "tool/options/servers.h"

#include <fmt/format.h>

#include "nbd/uri.h"
#include "tool/options/bracketed_commands.h"
#include "tool/text/join_words.h"

namespace vc::tool {

Result<void> refuse_server(const std::string& name, std::string_view why, std::string_view advice) {
  const auto command = unfold_command(name);
  ASSIGN_OR_RETURN(const bool is_nbd, nbd::is_nbd_uri(name));
  if (!command && !is_nbd && name != "-") return {};
  return fail(Error::unsupported(fmt::format(
      "'{}': {}: {}", command ? "[ " + join_words(*command, " ") + " ]" : name, why, advice)));
}

}  // namespace vc::tool
