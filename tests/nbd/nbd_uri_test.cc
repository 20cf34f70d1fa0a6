#include "nbd/uri.h"

#include "tests/catch_text.h"

using namespace vc;

using nbd::is_nbd_uri;

TEST_CASE("an export is put into a URI that names none", "[nbd_uri]") {
  const auto with = [](const char* uri) { return nbd::uri_with_export(uri, "snapshot:a b/c"); };
  CHECK(*with("nbd://host") == "nbd://host/snapshot:a%20b%2Fc");
  CHECK(*with("nbds://host:10809/") == "nbds://host:10809/snapshot:a%20b%2Fc");
  CHECK(*with("nbd+unix:///?socket=/tmp/x") == "nbd+unix:///snapshot:a%20b%2Fc?socket=/tmp/x");
  CHECK(*with("nbd+unix://?socket=/tmp/x") == "nbd+unix:///snapshot:a%20b%2Fc?socket=/tmp/x");
  REQUIRE_FAILS_WITH(with("nbd://host/disk"), "the URI names an export");
}

TEST_CASE("NBD URIs are distinguished from paths", "[copy]") {
  for (const char* uri :
       {"nbd://localhost", "nbd://localhost:10809/export", "nbds://host/", "nbd+unix:///?socket=/s",
        "nbds+unix:///e?socket=/s", "nbd+vsock://2", "nbds+vsock://2:10809/x"}) {
    INFO(uri);
    const auto is = is_nbd_uri(uri);
    REQUIRE_OK(is);
    CHECK(*is);
  }
  for (const char* path : {"disk.qcow2", "/var/lib/disk.qcow2", "./nbd://host", "./nbd:x", "a:b",
                           "with space", "/x/http://y", "nbdisk", "nbd", "://", "-"}) {
    INFO(path);
    const auto is = is_nbd_uri(path);
    REQUIRE_OK(is);
    CHECK_FALSE(*is);
  }
}

TEST_CASE("other protocols are refused with advice", "[copy]") {
  REQUIRE_FAILS_WITH(is_nbd_uri("https://host/disk.qcow2"), "nbdkit");
  REQUIRE_FAILS_WITH(is_nbd_uri("ssh://host/disk.qcow2"), "ssh");
  REQUIRE_FAILS_WITH(is_nbd_uri("json:{\"driver\":\"qcow2\"}"), "json:");
  REQUIRE_FAILS_WITH(is_nbd_uri("nbd:localhost:10809"), "nbd://");
}
