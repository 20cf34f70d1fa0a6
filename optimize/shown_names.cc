#include "optimize/shown_names.h"

#include <cctype>
#include <cstdlib>
#include <memory>

namespace vc::optimize {

namespace {

bool continues_a_name(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '-' || c == '.' ||
         c == '/';
}

}  // namespace

ShownNames::ShownNames(const std::string& given) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(given.c_str(), nullptr), std::free);
  if (!real) return;
  const std::string resolved = real.get();
  const size_t real_name = resolved.rfind('/') + 1;
  const size_t given_name = given.rfind('/') + 1;  // 0: no slash
  // A symbolic link has another file name: keep the resolved path in messages.
  if (resolved.substr(real_name) != given.substr(given_name)) return;
  given_ = given.substr(0, given_name);
  if (real_name > 1 && given_ != resolved.substr(0, real_name))
    real_ = resolved.substr(0, real_name);
}

std::string ShownNames::operator()(const std::string& text) const {
  if (real_.empty()) return text;
  std::string result;
  size_t at = 0;
  for (size_t found = text.find(real_); found != std::string::npos;
       found = text.find(real_, found + 1)) {
    if (found > 0 && continues_a_name(text[found - 1])) continue;
    result += text.substr(at, found - at) + given_;
    at = found + real_.size();
  }
  return result + text.substr(at);
}

Error ShownNames::operator()(const Error& error) const {
  std::string message = (*this)(error.message());
  switch (error.kind()) {
    case Error::Kind::kSystem:
      return Error::protocol(error.errnum(), std::move(message));
    case Error::Kind::kCorrupt:
      return Error::corrupt(std::move(message));
    case Error::Kind::kUnsupported:
      return Error::unsupported(std::move(message));
    case Error::Kind::kInvalid:
      return Error::invalid(std::move(message));
    case Error::Kind::kCancelled:
      break;
  }
  return error;
}

}  // namespace vc::optimize
