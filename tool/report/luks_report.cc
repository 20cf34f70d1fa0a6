#include "tool/report/luks_report.h"

#include <fmt/format.h>

#include <algorithm>

namespace vc::tool {

using nlohmann::ordered_json;

namespace {

// "cbc-essiv:sha256" has three parts.
struct Mode {
  std::string cipher;
  std::string vectors;
  std::string hash;  // of ESSIV; else empty
};

Mode parts_of(const std::string& mode) {
  const size_t dash = std::min(mode.find('-'), mode.size());
  const std::string vectors = mode.substr(std::min(dash + 1, mode.size()));
  const size_t colon = std::min(vectors.find(':'), vectors.size());
  return {mode.substr(0, dash), vectors.substr(0, colon),
          vectors.substr(std::min(colon + 1, vectors.size()))};
}

std::string with_blanks(std::string key) {
  std::replace(key.begin(), key.end(), '-', ' ');
  return key;
}

std::string value_text(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

ordered_json luks_json(const crypto::LuksHeader& luks) {
  const Mode mode = parts_of(luks.cipher.mode);
  const size_t bits = luks.cipher.key_bytes * (mode.cipher == "xts" ? 4 : 8);
  ordered_json json;
  json["ivgen-alg"] = mode.vectors;
  if (!mode.hash.empty()) json["ivgen-hash-alg"] = mode.hash;
  json["hash-alg"] = luks.hash;
  json["cipher-alg"] = fmt::format("{}-{}", luks.cipher.name, bits);
  json["uuid"] = luks.uuid;
  json["cipher-mode"] = mode.cipher;
  for (const crypto::LuksSlot& slot : luks.slots) {
    ordered_json it{{"active", slot.active}};
    if (slot.active) it["iters"] = slot.iterations;
    it["key-offset"] = slot.material;
    if (slot.active) it["stripes"] = slot.stripes;
    json["slots"].push_back(it);
  }
  // In QEMU's since 9.0. A header in another file is not supported.
  json["detached-header"] = false;
  json["payload-offset"] = luks.payload;
  json["master-key-iters"] = luks.digest_iterations;
  return json;
}

std::string luks_lines(const crypto::LuksHeader& luks, size_t indent) {
  std::string text;
  const auto line = [&](size_t depth, const std::string& key, const std::string& value) {
    text +=
        fmt::format("{:{}}{}:{}{}\n", "", indent + 4 * depth, key, value.empty() ? "" : " ", value);
  };
  const ordered_json json = luks_json(luks);
  for (const auto& [key, value] : json.items()) {
    line(0, with_blanks(key), value.is_array() ? "" : value_text(value));
    if (!value.is_array()) continue;
    for (size_t i = 0; i < value.size(); ++i) {
      line(1, fmt::format("[{}]", i), "");
      for (const auto& [inner, of_it] : value[i].items())
        line(2, with_blanks(inner), value_text(of_it));
    }
  }
  return text;
}

}  // namespace vc::tool
