#include "tool/options/disk_keys.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>

#include "storage/descriptor.h"
#include "tool/options/property_list.h"

namespace vc::tool {

namespace {

using crypto::Secret;

// As much of a file as can be a passphrase.
constexpr size_t kMostBytes = 64 << 10;

// Reads until `length` bytes, the end, or a newline if `line`.  Returns the bytes read, without the
// newline.
Result<size_t> read_secret(int fd, std::span<std::byte> to, bool line, const std::string& name) {
  size_t done = 0;
  while (done < to.size()) {
    // One byte at a time: what follows the line stays in a pipe.
    const ssize_t got = ::read(fd, to.data() + done, line ? 1 : to.size() - done);
    if (got < 0) return fail(Error::system(errno, name));
    if (got == 0 || (line && to[done] == std::byte{'\n'})) return done;
    done += static_cast<size_t>(got);
  }
  return fail(
      Error::invalid(fmt::format("{}: has {} bytes or more: is no passphrase", name, to.size())));
}

Secret first_bytes(const Secret& from, size_t length) {
  return Secret(from.text().substr(0, length));
}

Result<Secret> read_file(const std::string& path, bool line) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(Error::system(errno, path));
  Secret buffer(kMostBytes);
  ASSIGN_OR_RETURN(const size_t length, read_secret(file.get(), buffer.span(), line, path));
  return first_bytes(buffer, length);
}

// Turns the echo of the terminal off while it lives.  Signals that would end the process with the
// echo off interrupt the read instead.
class Silence {
 public:
  explicit Silence(int fd) : fd_(fd), changed_(::tcgetattr(fd, &before_) == 0) {
    struct sigaction interrupt {};
    interrupt.sa_handler = [](int) {};
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &interrupt, &old_[i]);
    if (!changed_) return;
    termios quiet = before_;
    quiet.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    ::tcsetattr(fd_, TCSAFLUSH, &quiet);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;
  ~Silence() {
    if (changed_) ::tcsetattr(fd_, TCSAFLUSH, &before_);
    for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &old_[i], nullptr);
  }

 private:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGQUIT};

  const int fd_;
  termios before_{};
  const bool changed_;
  std::array<struct sigaction, kSignals.size()> old_{};
};

Result<Secret> ask() {
  const std::string name = "disk:prompt";
  const Descriptor terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal) return fail(Error::system(errno, name + ": there is no terminal"));
  constexpr std::string_view kQuestion = "Passphrase of the disk: ";
  if (::write(terminal.get(), kQuestion.data(), kQuestion.size()) < 0)
    return fail(Error::system(errno, name));
  Secret buffer(kMostBytes);
  Result<size_t> length = size_t{0};
  {
    const Silence silence(terminal.get());
    length = read_secret(terminal.get(), buffer.span(), true, name);
  }
  if (::write(terminal.get(), "\n", 1) < 0) return fail(Error::system(errno, name));
  if (!length) return fail(length.error());
  return first_bytes(buffer, *length);
}

Result<Secret> decode_base64(std::string_view text) {
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  Secret decoded(text.size());
  size_t length = 0;
  uint32_t bits = 0;
  unsigned count = 0;
  size_t digits = 0;
  bool ended = false;
  for (const char c : text) {
    if (c == '\n' || c == '\r') continue;
    ++digits;
    const size_t digit = kDigits.find(c);
    if ((c != '=' && (digit == std::string_view::npos || ended)))
      return fail(Error::invalid("the secret is not base64"));
    ended = c == '=';
    if (ended) continue;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    count += 6;
    if (count >= 8) {
      count -= 8;
      decoded.data()[length++] = static_cast<std::byte>(bits >> count);
    }
  }
  if (digits % 4 != 0) return fail(Error::invalid("the secret is not base64"));
  return first_bytes(decoded, length);
}

}  // namespace

Result<Secret> parse_disk_key(const std::string& text) {
  constexpr std::string_view kFile = "disk:file:";
  constexpr std::string_view kText = "disk:key:";
  if (text.starts_with(kFile)) return read_file(text.substr(kFile.size()), true);
  if (text.starts_with(kText)) return Secret(std::string_view(text).substr(kText.size()));
  if (text == "disk:prompt") return ask();
  return fail(Error::invalid("the value must be disk:file:PATH, disk:key:TEXT or disk:prompt"));
}

void add_disk_key_option(CLI::App& app, const std::shared_ptr<crypto::KeyRing>& keys) {
  app.add_option_function<std::vector<std::string>>(
         "--key",
         [keys](const std::vector<std::string>& texts) {
           for (const std::string& text : texts) {
             auto key = parse_disk_key(text);
             if (!key) throw UsageError("--key: " + key.error().message());
             keys->add(std::move(*key));
           }
         },
         "passphrase of an encrypted image: disk:file:PATH")
      ->type_name("KEY")
      ->allow_extra_args(false)
      ->take_all()
      ->group(kRareOptions);
}

void add_object_option(CLI::App& app, QemuSecrets& secrets) {
  app.add_option_function<std::vector<std::string>>(
         "--object",
         [&secrets](const std::vector<std::string>& objects) {
           for (const std::string& it : objects)
             if (const auto added = secrets.add(it); !added)
               throw UsageError("--object: " + added.error().message());
         },
         "a secret: secret,id=ID,file=FILE; others are ignored")
      ->type_name("OBJECT")
      ->allow_extra_args(false)
      ->take_all()
      ->group(kRareOptions);
}

Result<void> QemuSecrets::add(const std::string& object) {
  const size_t comma = std::min(object.find(','), object.size());
  const std::string kind = object.substr(0, comma);
  if (kind != "secret" && kind != "qom-type=secret") return {};
  auto parsed = parse_property_list(object.substr(std::min(comma + 1, object.size())), "");
  // Without the words, which may be a part of the passphrase.
  if (!parsed)
    return fail(Error::invalid(
        "a secret is a list of KEY=VALUE: double each comma in a value, or use file="));
  auto properties = std::move(*parsed);
  const auto take = [&](const char* key) {
    const auto found = properties.find(key);
    if (found == properties.end()) return std::optional<std::string>();
    std::optional<std::string> value = std::move(found->second);
    properties.erase(found);
    return value;
  };
  const auto id = take("id");
  const auto file = take("file");
  const auto data = take("data");
  const std::string format = take("format").value_or("raw");
  if (!id || id->empty()) return fail(Error::invalid("a secret needs an id: id=ID"));
  if (!properties.empty())
    return fail(Error::unsupported(
        fmt::format("secret '{}': only file, data and format are supported", *id)));
  if (file.has_value() == data.has_value())
    return fail(Error::invalid(fmt::format("secret '{}': needs file= or data=", *id)));
  Secret secret;
  if (data) {
    secret = Secret(*data);
  } else {
    ASSIGN_OR_RETURN(secret, read_file(*file, false));
  }
  if (format == "base64") {
    ASSIGN_OR_RETURN(secret, with_context(decode_base64(secret.text()), *id));
  } else if (format != "raw") {
    return fail(Error::invalid(
        fmt::format("secret '{}': format '{}' is neither raw nor base64", *id, format)));
  }
  secrets_[*id] = std::make_shared<const Secret>(std::move(secret));
  return {};
}

Result<std::shared_ptr<const Secret>> QemuSecrets::find(const std::string& id) const {
  const auto found = secrets_.find(id);
  if (found != secrets_.end()) return found->second;
  return fail(Error::invalid(fmt::format(
      "there is no secret '{}': give it with --object secret,id={},file=FILE", id, id)));
}

}  // namespace vc::tool
