// Makes Catch2 print our errors, and REQUIRE_OK print the error of a Result.
#pragma once

#include "base/result.h"
#include "tests/catch.h"

using namespace vc;

// REQUIRE_OK (f ()): the result holds a value; if not, the message is shown.
#define REQUIRE_OK(expression)                                     \
  do {                                                             \
    const auto& checked_ = (expression);                           \
    INFO((checked_ ? std::string() : checked_.error().message())); \
    REQUIRE(checked_.has_value());                                 \
  } while (0)

// REQUIRE_FAILS_WITH (f (), "text"): the result is an error whose message holds the text.
#define REQUIRE_FAILS_WITH(expression, text)                         \
  do {                                                               \
    const auto& checked_ = (expression);                             \
    REQUIRE_FALSE(checked_.has_value());                             \
    REQUIRE_THAT(checked_.error().message(), Catch::Contains(text)); \
  } while (0)
