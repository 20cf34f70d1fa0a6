#include "appliance/proxy_parameters.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>

namespace vc::appliance {

namespace {

// In libnbd's URI, and as a parameter (nbd_connect_uri(3), nbdkit-nbd-plugin(1)).
constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kParameters{{
    {"tls-certificates=", "tls-certificates="},
    {"tls-psk-file=", "tls-psk="},
    {"tls-verify-peer=", "tls-verify="},
}};

int digit(char c) {
  if (std::isdigit(static_cast<unsigned char>(c)) != 0) return c - '0';
  return std::tolower(static_cast<unsigned char>(c)) - 'a' + 10;
}

// "%2F" is a slash.
std::string decoded(std::string_view text) {
  std::string result;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() &&
        std::isxdigit(static_cast<unsigned char>(text[i + 1])) != 0 &&
        std::isxdigit(static_cast<unsigned char>(text[i + 2])) != 0) {
      result += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      result += text[i];
    }
  }
  return result;
}

}  // namespace

std::vector<std::string> proxy_parameters(const std::string& uri) {
  const size_t query = std::min(uri.find('?'), uri.size());
  std::string plain = uri.substr(0, query);
  std::vector<std::string> words;
  for (size_t at = query; at < uri.size();) {
    const size_t end = std::min(uri.find_first_of("&;", at + 1), uri.size());
    const std::string_view part = std::string_view(uri).substr(at + 1, end - at - 1);
    bool taken = false;
    for (const auto& [name, parameter] : kParameters) {
      if (!part.starts_with(name)) continue;
      words.push_back(std::string(parameter) + decoded(part.substr(name.size())));
      taken = true;
    }
    if (!taken) {
      plain += plain.find('?') == std::string::npos ? '?' : '&';
      plain += part;
    }
    at = end;
  }
  words.insert(words.begin(), {"nbd", "uri=" + plain, "shared=true"});
  return words;
}

}  // namespace vc::appliance
