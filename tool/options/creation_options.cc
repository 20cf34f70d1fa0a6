#include "tool/options/creation_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "tool/options/property_list.h"
#include "tool/text/join_words.h"
#include "tool/text/size_text.h"

namespace vc::tool {

using copy::Preallocation;

namespace {

Result<bool> parse_switch(const std::string& text) {
  if (text == "on") return true;
  if (text == "off") return false;
  return fail(Error::invalid(fmt::format("'{}' is neither on nor off", text)));
}

Result<uint32_t> parse_compat(const std::string& text) {
  if (text == "0.10" || text == "v2") return uint32_t{2};
  if (text == "1.1" || text == "v3") return uint32_t{3};
  return fail(Error::invalid(fmt::format("'{}' is neither 0.10 nor 1.1", text)));
}

// Parses a power of two from `low` to `high`. Returns its exponent.
Result<unsigned> parse_exponent(const std::string& text, uint64_t low, uint64_t high,
                                const char* range) {
  ASSIGN_OR_RETURN(const uint64_t value, parse_size(text));
  if (!std::has_single_bit(value) || value < low || value > high)
    return fail(Error::invalid(fmt::format("'{}' is not a power of two {}", text, range)));
  return static_cast<unsigned>(std::countr_zero(value));
}

Result<Preallocation> parse_preallocation(const std::string& text) {
  for (const auto it : {Preallocation::kOff, Preallocation::kMetadata, Preallocation::kFalloc,
                        Preallocation::kFull})
    if (text == to_string(it)) return it;
  return fail(Error::invalid(fmt::format("'{}' is not one of: off, metadata, falloc, full", text)));
}

Result<qcow2::CompressionType> parse_type(const std::string& text) {
  for (const auto it : {qcow2::CompressionType::kDeflate, qcow2::CompressionType::kZstd})
    if (text == to_string(it)) return it;
  return fail(Error::invalid(fmt::format("'{}' is neither zlib nor zstd", text)));
}

Result<std::string> parse_name(const std::string& text) {
  if (text.empty()) return fail(Error::invalid("the name is empty"));
  return text;
}

struct Key {
  const char* name;
  Result<void> (*set)(const std::string& value, CreationOptions& options);
};

// Parses `value` into a member.
#define SET(member, parse)                                                 \
  [](const std::string& value, CreationOptions& options) -> Result<void> { \
    ASSIGN_OR_RETURN(options.member, parse);                               \
    return {};                                                             \
  }

constexpr std::array kKeys = {
    Key{"compat", SET(image.version, parse_compat(value))},
    Key{"cluster_size",
        SET(image.cluster_bits, parse_exponent(value, 512, 2 << 20, "from 512 to 2M"))},
    Key{"refcount_bits", SET(image.refcount_order, parse_exponent(value, 1, 64, "from 1 to 64"))},
    Key{"extended_l2", SET(image.extended_l2, parse_switch(value))},
    Key{"lazy_refcounts", SET(image.lazy_refcounts, parse_switch(value))},
    Key{"preallocation", SET(image.preallocation, parse_preallocation(value))},
    Key{"compression_type", SET(compression_type, parse_type(value))},
    Key{"compression_level",
        [](const std::string& value, CreationOptions& options) -> Result<void> {
          ASSIGN_OR_RETURN(const uint64_t level, parse_number(value, 1, 22));
          options.compression_level = static_cast<int>(level);
          return {};
        }},
    Key{"backing_file", SET(image.backing_file, parse_name(value))},
    Key{"backing_fmt", SET(image.backing_format, parse_name(value))},
    Key{"data_file", SET(image.data_file, parse_name(value))},
    Key{"data_file_raw", SET(image.data_file_raw, parse_switch(value))},
    Key{"encrypt.format", SET(encryption.format, parse_name(value))},
    Key{"encrypt.key-secret", SET(encryption.key_secret, parse_name(value))},
    Key{"encrypt.cipher-alg", SET(encryption.cipher_alg, parse_name(value))},
    Key{"encrypt.cipher-mode", SET(encryption.cipher_mode, parse_name(value))},
    Key{"encrypt.ivgen-alg", SET(encryption.ivgen_alg, parse_name(value))},
    Key{"encrypt.ivgen-hash-alg", SET(encryption.ivgen_hash_alg, parse_name(value))},
    Key{"encrypt.hash-alg", SET(encryption.hash_alg, parse_name(value))},
    Key{"encrypt.iter-time", SET(encryption.iter_time, parse_name(value))},
    // As in qemu-img convert: accepted, but the disk is as large as the source.
    Key{"size", SET(size, parse_size(value))},
};

#undef SET

}  // namespace

std::vector<std::string> creation_option_keys() {
  std::vector<std::string> keys;
  keys.reserve(kKeys.size());
  for (const Key& key : kKeys) keys.emplace_back(key.name);
  return keys;
}

Result<void> add_creation_options(const std::string& list, CreationOptions& options) {
  for (const std::string& part : split_list(list)) {
    const size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    const auto key =
        std::find_if(kKeys.begin(), kKeys.end(), [&](const Key& it) { return name == it.name; });
    if (key == kKeys.end())
      return fail(
          Error::invalid(fmt::format("'{}' is not an option of an image: the options are {}", name,
                                     join_words(creation_option_keys(), ", "))));
    if (equals == std::string::npos)
      return fail(
          Error::invalid(fmt::format("{}: the value is missing, as in {}=VALUE", name, name)));
    RETURN_IF_ERROR(with_context(key->set(part.substr(equals + 1), options), name));
  }
  return {};
}

}  // namespace vc::tool
