#include "tool/options/creation_options.h"

#include "tests/catch_text.h"
#include "tool/options/bracketed_commands.h"
#include "tool/options/copy_profile.h"

using namespace tool;

TEST_CASE("creation options are parsed as in qemu-img", "[creation_options]") {
  CreationOptions options;
  REQUIRE_OK(add_creation_options("compat=0.10,cluster_size=1M,refcount_bits=64", options));
  REQUIRE_OK(
      add_creation_options("backing_file=a,,b=c,lazy_refcounts=off,lazy_refcounts=on", options));
  CHECK(options.image.version == 2u);
  CHECK(options.image.cluster_bits == 20u);
  CHECK(options.image.refcount_order == 6u);
  CHECK(options.image.backing_file == "a,b=c");
  CHECK(options.image.lazy_refcounts == true);
  CHECK_FALSE(options.image.extended_l2.has_value());
}

TEST_CASE("an invalid option is named with the allowed values", "[creation_options]") {
  CreationOptions options;
  REQUIRE_FAILS_WITH(add_creation_options("nocow=on", options),
                     "'nocow' is not an option of an image");
  REQUIRE_FAILS_WITH(add_creation_options("compat", options), "compat: the value is missing");
  REQUIRE_FAILS_WITH(add_creation_options("compat=2", options),
                     "compat: '2' is neither 0.10 nor 1.1");
  REQUIRE_FAILS_WITH(add_creation_options("refcount_bits=128", options), "from 1 to 64");
  REQUIRE_FAILS_WITH(add_creation_options("preallocation=some", options),
                     "not one of: off, metadata, falloc, full");
  REQUIRE_FAILS_WITH(add_creation_options("", options), "'' is not an option");
}

TEST_CASE("brackets make one word of a command", "[bracketed_commands]") {
  const auto folded = fold_commands({"copy", "[", "nbdkit", "-r", "file", "a b", "]", "x", "[x]"});
  REQUIRE(folded.size() == 4);
  CHECK(unfold_command(folded[1]) == std::vector<std::string>{"nbdkit", "-r", "file", "a b"});
  CHECK_FALSE(unfold_command("copy").has_value());
  CHECK_FALSE(unfold_command("[x]").has_value());
  CHECK(unfold_command(fold_commands({"[", "", "y", "]"})[0]) == std::vector<std::string>{"", "y"});
}

TEST_CASE("profiles are found by their names", "[copy_profile]") {
  for (const char* name : {"sequential", "random", "archive"}) {
    const auto found = find_profile(name);
    REQUIRE_OK(found);
    CHECK(std::string((*found)->name) == name);
  }
  REQUIRE_FAILS_WITH(find_profile("x"), "not one of: sequential, random, archive");
}
