#include "nbd/uri.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>

namespace vc::nbd {

namespace {

constexpr std::array<std::string_view, 6> kNbd{"nbd",       "nbds",      "nbd+unix",
                                               "nbds+unix", "nbd+vsock", "nbds+vsock"};

}  // namespace

Result<bool> is_nbd_uri(const std::string& name) {
  if (name.starts_with("json:"))
    return fail(Error::unsupported(
        fmt::format("'{}': json: names are not supported: give a path or an NBD URI", name)));
  if (name.starts_with("nbd:") && !name.starts_with("nbd://"))
    return fail(Error::unsupported(fmt::format(
        "'{}': give it as an NBD URI, such as nbd://HOST/EXPORT or nbd+unix:///?socket=PATH",
        name)));
  const size_t end = name.find("://");
  if (end == std::string::npos || end == 0) return false;
  const std::string scheme = name.substr(0, end);
  if (!std::all_of(scheme.begin(), scheme.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '+' || c == '-' || c == '.';
      }))
    return false;
  if (std::find(kNbd.begin(), kNbd.end(), scheme) != kNbd.end()) return true;
  return fail(Error::unsupported(fmt::format(
      "'{}': {} is not supported: serve it with nbdkit, and give the NBD URI", name, scheme)));
}

Result<std::string> uri_with_export(const std::string& uri, const std::string& name) {
  // The form is scheme://authority/export?query.
  const size_t authority = uri.find("://") + 3;
  const size_t query = std::min(uri.find('?', authority), uri.size());
  const size_t slash = std::min(uri.find('/', authority), query);
  if (query > slash + 1)
    return fail(Error::invalid(
        fmt::format("'{}': the URI names an export, so --snapshot cannot select one", uri)));
  std::string text = uri.substr(0, slash) + "/";
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_' || c == '.' || c == ':')
      text += c;
    else
      text += fmt::format("%{:02X}", byte);
  }
  return text + uri.substr(query);
}

}  // namespace vc::nbd
