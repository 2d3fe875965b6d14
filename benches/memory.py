#!/usr/bin/env python3
"""The peak memory of a mirror run, and a check that its bytes are right.

    cargo build --release && python3 benches/memory.py

Mirrors, each into a fresh directory:

  documents   a feed of 200,000 documents of 500 bytes
  inline      a feed with one document whose attachment of 500 MB stands on its line as base64
  beside      the same attachment in a file beside the feed
  server      the same attachment from a server speaking CouchDB's protocol (a small one, below)
  rows        a feed of 64 documents of almost 4 MiB each, the longest lines that are read whole

and reads the peak of the resident memory (`ru_maxrss`). Exits 1 if one is over the limit.
"""

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import harness
from harness import MIB

LIMIT = 100 * MIB
AIM = 64 * MIB
NAME = "large.bin"
REVISION = "1-0123456789abcdef0123456789abcdef"


class Attachment:
    """A file of bytes that do not compress, and what is known of it."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        sha256, md5 = hashlib.sha256(), hashlib.md5()
        with open(path, "wb") as file:
            for piece in harness.random_pieces(size):
                file.write(piece)
                sha256.update(piece)
                md5.update(piece)
        self.sha256 = sha256.hexdigest()
        self.digest = "md5-" + base64.b64encode(md5.digest()).decode()

    def check(self, mirror, collection):
        found = mirror / collection / "big" / "attachments" / NAME
        if harness.sha256(found) != self.sha256:
            sys.exit(f"{found} does not hold the attachment's bytes")


def row(attachments):
    """A feed's row around the text of an attachment, as its beginning and its end."""
    head = f'{{"seq":1,"id":"big","changes":[{{"rev":"{REVISION}"}}],"doc":{{"_id":"big","_rev":"{REVISION}",'
    return f'{head}"_attachments":{{"{NAME}":{{{attachments}', '}},"n":1}}\n'


def documents(work, options):
    harness.write_feed(work / "documents.ndjson", options.documents, 500)
    usage = harness.mirror("feed:" + str(work / "documents.ndjson"), work / "m-documents", watch_memory=True)
    count = sum(1 for _ in (work / "m-documents" / "documents").iterdir())
    if count != options.documents:
        sys.exit(f"{count} documents were mirrored instead of {options.documents}")
    for number in (1, options.documents // 2, options.documents):
        name, _, body = harness.document(number, 500)
        found = (work / "m-documents" / "documents" / name / "document.json").read_text()
        if found != body + "\n":
            sys.exit(f"{name} was not mirrored as it was sent")
    return f"{options.documents:,} documents of 500 bytes", usage


def inline(work, options, attachment):
    head, tail = row('"content_type":"application/octet-stream","data":"')
    with open(work / "inline.ndjson", "wb") as feed:
        feed.write(head.encode())
        for piece in harness.base64_pieces(options.size):
            feed.write(piece)
        feed.write(b'"' + tail.encode())
    usage = harness.mirror("feed:" + str(work / "inline.ndjson"), work / "m-inline", watch_memory=True)
    (work / "inline.ndjson").unlink()
    attachment.check(work / "m-inline", "inline")
    return f"{options.size / 1e6:.0f} MB inline, base64 on one line", usage


def beside(work, options, attachment):
    head, tail = row(f'"content_type":"application/octet-stream","file":"{attachment.path.name}"')
    (work / "beside.ndjson").write_text(head + tail)
    usage = harness.mirror("feed:" + str(work / "beside.ndjson"), work / "m-beside", watch_memory=True)
    attachment.check(work / "m-beside", "beside")
    return f"{options.size / 1e6:.0f} MB in a file beside the feed", usage


def server(work, options, attachment):
    command = [sys.executable, __file__, "--serve", attachment.path, "--digest", attachment.digest]
    serving = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    try:
        port = int(serving.stdout.readline())
        usage = harness.mirror(f"http://127.0.0.1:{port}/db", work / "m-server", watch_memory=True)
    finally:
        serving.terminate()
        serving.wait()
    attachment.check(work / "m-server", "db")
    return f"{options.size / 1e6:.0f} MB from a server", usage


def rows(work, options):
    count, size = 64, 4 * MIB - 1024
    harness.write_feed(work / "rows.ndjson", count, size)
    usage = harness.mirror("feed:" + str(work / "rows.ndjson"), work / "m-rows", watch_memory=True)
    for number in (1, count):
        name, _, body = harness.document(number, size)
        if (work / "m-rows" / "rows" / name / "document.json").read_text() != body + "\n":
            sys.exit(f"{name} was not mirrored as it was sent")
    return f"{count} documents of almost 4 MiB", usage


def serve(path, digest):
    """Answers as a CouchDB would that holds one document with one attachment."""
    path = Path(path)
    size = path.stat().st_size
    stub = {"content_type": "application/octet-stream", "revpos": 1, "digest": digest, "length": size, "stub": True}
    doc = {"_id": "big", "_rev": REVISION, "n": 1, "_attachments": {NAME: stub}}
    change = {"seq": "1-g1AAAA", "id": "big", "changes": [{"rev": REVISION}], "doc": doc}
    info = {
        "db_name": "db", "purge_seq": "0-g1AAAA", "update_seq": "1-g1AAAA", "doc_count": 1,
        "doc_del_count": 0, "instance_start_time": "1700000000",
    }
    answers = {
        "/": {"couchdb": "Welcome", "version": "3.4.3"},
        "/db": info,
        "/db/_changes": {"results": [change], "last_seq": "1-g1AAAA", "pending": 0},
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            at = urllib.parse.urlsplit(self.path).path.rstrip("/") or "/"
            if at == f"/db/big/{NAME}":
                self.answer(200, "application/octet-stream", size)
                with open(path, "rb") as file:
                    while piece := file.read(256 * 1024):
                        self.wfile.write(piece)
                return
            known = at in answers
            text = json.dumps(answers[at] if known else {"error": "not_found", "reason": "missing"}).encode()
            self.answer(200 if known else 404, "application/json", len(text))
            self.wfile.write(text)

        def answer(self, status, kind, length):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


CASES = {"documents": documents, "inline": inline, "beside": beside, "server": server, "rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=500_000_000, help="of the attachment, in bytes")
    parser.add_argument("--directory", help="where to work; the system's temporary directory by default")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--digest", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.digest)
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    harness.plainfold()
    measured = []
    for name in options.cases or CASES:
        with harness.Workspace(options.directory) as work:
            if CASES[name].__code__.co_argcount == 3:
                measured.append(CASES[name](work, options, Attachment(work / "attachment.bin", options.size)))
            else:
                measured.append(CASES[name](work, options))
    verdict = lambda peak: "over the limit" if peak > LIMIT else "over the aim" if peak > AIM else "within the aim"
    harness.table(
        ["case", "peak", f"limit {LIMIT // MIB} MiB, aim {AIM // MIB} MiB", "seconds", "CPU seconds"],
        [
            [case, f"{usage.peak / MIB:.1f} MiB", verdict(usage.peak), f"{usage.seconds:.1f}", f"{usage.cpu:.1f}"]
            for case, usage in measured
        ],
    )
    return 1 if any(usage.peak > LIMIT for _, usage in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
