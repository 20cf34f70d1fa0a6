#include "tool/options/trimming_options.h"

#include <fmt/format.h>

#include <sstream>

#include "tool/text/size_text.h"

namespace vc::tool {

namespace {

void add_names(CLI::App& app, const std::string& name, std::vector<std::string>& target,
               const std::string& description) {
  app.add_option(name, target, description)
      ->type_name("LIST")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->take_all();
}

}  // namespace

Result<appliance::TrimOptions::Drop> parse_drop(const std::string& text) {
  appliance::TrimOptions::Drop drop;
  std::istringstream words(text);
  for (std::string word; std::getline(words, word, ',');) {
    if (word == "pagefile")
      drop.pagefile = true;
    else if (word == "swapfile")
      drop.swapfile = true;
    else if (word == "hiberfile")
      drop.hiberfile = true;
    else if (word == "shadows")
      drop.shadows = true;
    else if (word == "swap")
      drop.swap = true;
    else
      return fail(Error::invalid(
          fmt::format("'{}' is not one of: pagefile, swapfile, hiberfile, shadows, swap", word)));
  }
  return drop;
}

void add_trimming_options(CLI::App& app, appliance::TrimOptions& options,
                          const std::shared_ptr<crypto::KeyRing>& keys) {
  app.add_option_function<std::vector<std::string>>(
         "--key",
         [&options, keys](const std::vector<std::string>& texts) {
           for (const std::string& text : texts) {
             if (text.starts_with(kDiskKey)) {
               auto secret = parse_disk_key(text);
               if (!secret) throw UsageError("--key: " + secret.error().message());
               keys->add(std::move(*secret));
               continue;
             }
             auto key = appliance::parse_passphrase(text);
             if (!key) throw UsageError("--key: " + key.error().message());
             options.passphrases.push_back(std::move(*key));
           }
         },
         "key of a volume, or of the image: disk:file:PATH")
      ->type_name("KEY")
      ->allow_extra_args(false)
      ->take_all();
  add_names(app, "--filesystems", options.filesystems,
            "trim only these, such as /dev/sda1,/dev/vg/lv");
  add_names(app, "--ignore", options.ignore, "do not trim these");
  add_parsed_option(
      app, "--sector-size", "SIZE", options.sector_size,
      [](const std::string& text) -> Result<std::optional<uint64_t>> {
        ASSIGN_OR_RETURN(const uint64_t size, parse_size(text));
        if (size != 512 && size != 4096)
          return fail(Error::invalid(fmt::format("'{}' is neither 512 nor 4096", text)));
        return std::optional(size);
      },
      "sector size, 512 or 4096; default: detected")
      ->group(kRareOptions);
  add_parsed_option(app, "--drop", "LIST", options.drop, parse_drop,
                    "drop pagefile, swapfile, hiberfile, shadows, swap");
}

}  // namespace vc::tool
