#!/usr/bin/env python3
"""What a live mirror of many databases costs at rest, and how soon a sleeping database wakes up.

    cargo build --release && python3 benches/databases.py http://admin:secret@127.0.0.1:5984

The server is a CouchDB that may be filled with databases, whose names begin with `bench-`. Without its
database `_global_changes` the mirror compares update sequences instead of following `_db_updates`.

Prints: the time of the first catch-up; then, over a minute in which nothing is written, the connections
to the server, its requests a second, the resident memory and the processor time of the mirror; then the
time from a write into a sleeping database to its file.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import harness

TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """A CouchDB, by its URL with an admin."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        login = f"{parts.username}:{urllib.parse.unquote(parts.password)}"
        self.port = parts.port
        self.base = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self.head = {
            "Authorization": "Basic " + base64.b64encode(login.encode()).decode(),
            "Content-Type": "application/json",
        }

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, self.head, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def requests(self):
        return self.ask("GET", "/_node/_local/_stats/couchdb/httpd/requests")["value"]


def connections(pid, port):
    """The connections of a process to a port."""
    sockets = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    count = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        part = line.split()
        is_open = part[3] == "01" and int(part[2].split(":")[1], 16) == port
        count += is_open and part[9] in sockets
    return count


def resident(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0


def processor(pid):
    part = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(part[11]) + int(part[12])) / TICKS


def wait_for(what, is_so, seconds=900):
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > seconds:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.01)
    return time.monotonic() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--databases", type=int, default=2000)
    parser.add_argument("--rest", type=int, default=60, help="seconds at rest")
    parser.add_argument("--binary", help="another build of plainfold")
    options = parser.parse_args()
    binary = options.binary or str(harness.plainfold())
    server = Server(options.url)
    names = [f"bench-{number:05}" for number in range(options.databases)]
    there = set(server.ask("GET", "/_all_dbs"))
    for name in names:
        if name not in there:
            server.ask("PUT", f"/{name}?q=1")
            server.ask("PUT", f"/{name}/first", {"text": "x" * 200})
    with tempfile.TemporaryDirectory() as place:
        mirror = Path(place) / "mirror"
        command = [binary, "mirror", options.url, str(mirror), "--live", "--collections", "bench-*"]
        log = open(Path(place) / "log", "wb")
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            measure(server, process.pid, mirror, names, options.rest)
        finally:
            process.terminate()
            process.wait()


def measure(server, pid, mirror, names, rest):
    def is_there(name, document):
        return lambda: (mirror / name / document / "document.json").exists()

    took = wait_for("the catch-up", lambda: all(is_there(name, "first")() for name in names))
    print(f"first catch-up      {took:.1f} s")
    time.sleep(30)
    before, requests, most = processor(pid), server.requests(), 0
    for _ in range(rest):
        most = max(most, connections(pid, server.port))
        time.sleep(1)
    print(f"connections         {most}")
    print(f"requests a second   {(server.requests() - requests) / rest:.1f}")
    print(f"resident memory     {resident(pid):.0f} MiB")
    print(f"processor           {(processor(pid) - before) / rest * 100:.1f} %")
    waits = []
    # The first databases were the first to sleep.
    for name in names[: len(names) // 100]:
        document = f"later-{time.time_ns()}"
        server.ask("PUT", f"/{name}/{document}", {})
        waits.append(wait_for("a write", is_there(name, document), 120))
    waits.sort()
    print(f"a write's file      median {statistics.median(waits):.2f} s, longest {waits[-1]:.2f} s")
    print(f"connections         {connections(pid, server.port)} afterwards")


if __name__ == "__main__":
    main()
