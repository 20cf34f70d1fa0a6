// Text in XML documents.
#pragma once

#include <string>
#include <string_view>

namespace vc {

// Escapes the characters that have a meaning in the text and in the attributes of XML. The caller
// must have replaced characters that are invalid in XML.
std::string escape_xml(std::string_view text);

}  // namespace vc
