"""A web server with ranges for the files of a folder, on port 80: web_server.py FOLDER LOG.

LOG gets a line "STATUS BYTES" for each answer.
"""

import http.server
import os
import re
import sys

FOLDER, LOG = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, send):
        try:
            with open(os.path.join(FOLDER, os.path.basename(self.path)), "rb") as file:
                content = file.read()
        except OSError:
            return self.send_error(404)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, first, end = 200, 0, len(content)
        if wanted:
            status, first = 206, int(wanted[1])
            end = min(int(wanted[2] or end) + 1, end)
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(content)}")
        self.end_headers()
        if send:
            self.wfile.write(content[first:end])
            with open(LOG, "a", encoding="ascii") as log:
                log.write(f"{status} {end - first}\n")

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("", 80), Handler).serve_forever()
