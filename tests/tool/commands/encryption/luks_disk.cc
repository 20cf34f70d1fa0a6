#include "tests/tool/commands/encryption/luks_disk.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <stdexcept>

#include "qcow2/format/encryption.h"
#include "storage/file_storage.h"
#include "tests/support/random.h"
#include "tests/support/raw_file.h"
#include "tests/support/temp_directory.h"

namespace vc::tool_test {

using support::run;
using support::run_ok;

namespace {

std::string secret(const std::string& id, const std::string& passphrase) {
  return fmt::format("secret,id={},data={}", id, passphrase);
}

// The words before the name of the image.
std::vector<std::string> secrets(const std::string& passphrase, const std::string& base) {
  std::vector<std::string> words{"--object", secret("top", passphrase)};
  if (!base.empty()) words.insert(words.end(), {"--object", secret("base", base)});
  words.emplace_back("--image-opts");
  return words;
}

std::string image_opts(const std::string& path, const std::string& base) {
  return fmt::format("driver=qcow2,encrypt.key-secret=top,{}file.filename={}",
                     base.empty() ? "" : "backing.encrypt.key-secret=base,", path);
}

}  // namespace

// qemu-img measures the time of its key derivation, and gives up if the clock did not
// advance during the first iterations: SHA-512 is slow enough in most cases.
void create_luks(const std::string& path, const std::string& size, const std::string& options,
                 const std::string& passphrase) {
  for (unsigned attempt = 0;; ++attempt) {
    const auto made =
        run({"qemu-img", "create", "-q", "-f", "qcow2", "--object", secret("s", passphrase), "-o",
             "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,"
             "encrypt.hash-alg=sha512" +
                 options,
             path, size});
    if (made.ok()) return;
    if (attempt == 200) throw std::runtime_error("no LUKS image: " + made.describe());
  }
}

void qemu_io(const std::string& path, const std::vector<std::string>& commands,
             const std::string& passphrase, const std::string& base) {
  std::vector<std::string> words{"qemu-io"};
  for (const std::string& it : commands) words.insert(words.end(), {"-c", it});
  for (std::string& it : secrets(passphrase, base)) words.push_back(std::move(it));
  words.push_back(image_opts(path, base));
  run_ok(words);
}

std::vector<std::byte> qemu_reads(const std::string& path, const std::string& passphrase,
                                  const std::string& base) {
  const support::TempDirectory folder;
  const std::string raw = folder / "raw";
  std::vector<std::string> words{"qemu-img", "convert", "-O", "raw"};
  for (std::string& it : secrets(passphrase, base)) words.push_back(std::move(it));
  words.insert(words.end(), {image_opts(path, base), raw});
  run_ok(words);
  return support::read_file(raw);
}

support::Outcome qemu_img(std::vector<std::string> words, const std::string& path,
                          const std::vector<std::string>& rest) {
  words.insert(words.begin(), "qemu-img");
  for (std::string& it : secrets(kPassphrase, "")) words.push_back(std::move(it));
  words.push_back(image_opts(path, ""));
  words.insert(words.end(), rest.begin(), rest.end());
  return run_ok(words);
}

std::vector<std::byte> qemu_reads_snapshot(const std::string& path, const std::string& snapshot) {
  const support::TempDirectory folder;
  qemu_img({"convert", "-O", "raw", "-l", "snapshot.name=" + snapshot}, path, {folder / "raw"});
  return support::read_file(folder / "raw");
}

std::string qemu_dirty_map(const std::string& path, const std::string& bitmap) {
  std::vector<std::string> words{
      "nbdinfo", "--map=qemu:dirty-bitmap:" + bitmap, "--", "[", "qemu-nbd", "-r", "-B", bitmap};
  for (std::string& it : secrets(kPassphrase, "")) words.push_back(std::move(it));
  words.insert(words.end(), {image_opts(path, ""), "]"});
  return run_ok(words).out;
}

support::Outcome qemu_check(const std::string& path) {
  std::vector<std::string> words{"qemu-img", "check", "-q"};
  for (std::string& it : secrets(kPassphrase, "")) words.push_back(std::move(it));
  words.push_back(image_opts(path, ""));
  return run(words);
}

std::string key_in_file(const std::string& path, const std::string& passphrase) {
  support::write_file(path, passphrase + "\nmore\n");
  return "--key=disk:file:" + path;
}

std::vector<std::byte> luks_header(const std::string& path) {
  const auto file = FileStorage::open_readonly(path).value();
  const auto header = qcow2::Header::read(*file, qcow2::Header::Purpose::kUnlock).value();
  return qcow2::read_luks_header(*file, header).value().bytes;
}

uint64_t luks_offset(const std::string& path) {
  const auto file = FileStorage::open_readonly(path).value();
  const auto header = qcow2::Header::read(*file, qcow2::Header::Purpose::kUnlock).value();
  return qcow2::encryption_pointer(header).value().at.value();
}

uint64_t luks_extension(const std::string& path) {
  constexpr std::array kType{std::byte{0x05}, std::byte{0x37}, std::byte{0xbe}, std::byte{0x77}};
  const auto bytes = support::read_file(path);
  const auto found = std::search(bytes.begin(), bytes.end(), kType.begin(), kType.end());
  return static_cast<uint64_t>(found - bytes.begin());
}

std::vector<std::string> random_writes(uint64_t seed, uint64_t size, unsigned count) {
  support::Random random(seed);
  std::vector<std::string> commands;
  for (unsigned i = 0; i < count; ++i) {
    const uint64_t at = random.below(size / 512) * 512;
    const uint64_t length = std::min<uint64_t>((1 + random.below(200)) * 512, size - at);
    commands.push_back(
        random.chance(20) ? fmt::format("write -q -z {} {}", at, length)
                          : fmt::format("write -q -P {} {} {}", 1 + random.below(255), at, length));
  }
  return commands;
}

}  // namespace vc::tool_test
