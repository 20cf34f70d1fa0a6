// Parses LVM2's description of a volume group: nested sections of names with values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace vc::guest {

class LvmSection {
 public:
  using Scalar = std::variant<int64_t, std::string>;
  using Value = std::vector<Scalar>;  // one value, or a list

  // Returns an error if the text is invalid or nested too deeply.
  static Result<LvmSection> parse(std::string_view text);

  // Return nullopt or nullptr if there is no value of that name and type.
  std::optional<uint64_t> number(const std::string& name) const;
  std::optional<std::string> text(const std::string& name) const;
  const Value* list(const std::string& name) const;
  const LvmSection* section(const std::string& name) const;
  const std::map<std::string, Value>& values() const { return values_; }
  const std::map<std::string, LvmSection>& sections() const { return sections_; }

  friend bool operator==(const LvmSection&, const LvmSection&) = default;

 private:
  friend class LvmParser;

  std::map<std::string, Value> values_;
  std::map<std::string, LvmSection> sections_;
};

}  // namespace vc::guest
