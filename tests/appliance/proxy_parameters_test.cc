#include "appliance/proxy_parameters.h"

#include "tests/catch.h"

using namespace vc;

using appliance::proxy_parameters;
using Words = std::vector<std::string>;

TEST_CASE("files of a URI become parameters of the proxy") {
  CHECK(proxy_parameters("nbd://host/disk") == Words{"nbd", "uri=nbd://host/disk", "shared=true"});
  CHECK(proxy_parameters("nbd+unix:///disk?socket=/a/b") ==
        Words{"nbd", "uri=nbd+unix:///disk?socket=/a/b", "shared=true"});
  CHECK(proxy_parameters("nbds+unix://me@/?tls-psk-file=/keys%2Fpsk&socket=/a") ==
        Words{"nbd", "uri=nbds+unix://me@/?socket=/a", "shared=true", "tls-psk=/keys/psk"});
  CHECK(
      proxy_parameters("nbds://host/?tls-certificates=/pki&tls-verify-peer=false") ==
      Words{"nbd", "uri=nbds://host/", "shared=true", "tls-certificates=/pki", "tls-verify=false"});
}
