// Why a proxy has given up its server, told to the process that started the proxy.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "storage/descriptor.h"

namespace vc::nbd {

// A file in memory. The proxy writes one line into it, at most once.
class ProxyNote {
 public:
  static Result<ProxyNote> make();

  // Returns the path for a child process of the same user; valid as long as the object.
  std::string path() const;
  // Returns what the proxy has written, without the end of line; nullopt: nothing yet.
  // Thread-safe.
  std::optional<std::string> text() const;

  // Writes a note into the file at `path`, as the proxy.
  static Result<void> write(const std::string& path, const std::string& text);

 private:
  explicit ProxyNote(Descriptor file) : file_(std::move(file)) {}

  Descriptor file_;
};

}  // namespace vc::nbd
