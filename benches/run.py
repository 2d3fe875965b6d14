#!/usr/bin/env python3
"""Every measure of Plainfold beside its peers, in one run: a table and a chart in `benches/README.md`.

    cargo build --release --bin plainfold --example bare && python3 benches/run.py [--server URL] [case …]

The peers come from npm (`benches/peers`, installed into `target/bench-peers`). Cases that read or
write a server use the one that `--server` names (a CouchDB with an admin in the URL, to which
databases `plainfold-bench-*` are added and from which they are removed), or else a pouchdb-server
in memory, which is slow itself, so that its figures say less. Each case runs Plainfold and its peer in
turn, `--rounds` times, on tmpfs and, where it matters and a loop mount is allowed, on ext4 in memory;
the best run of each counts, as in `speed.py`. Every result is looked at before it counts. With
`--write` the table and the chart take their places in the README; otherwise both are printed only.
"""

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.parse
from base64 import b64encode
from pathlib import Path

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import chart
import harness
import speed
from harness import MIB, ROOT

PEERS = ROOT / "target" / "bench-peers"
SMALL = 400
TOOLS = ("npm", "node", "curl")


class Server:
    """A server speaking CouchDB's protocol, and the databases that a run adds to it."""

    def __init__(self, url):
        self.process = None
        if url is None:
            url = self._start()
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.url = parts.hostname, parts.port or 5984, url.rstrip("/")
        self.headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if parts.username:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self.headers["Authorization"] = "Basic " + b64encode(pair.encode()).decode()
        self.added = []
        said = json.loads(self.ask("GET", "/"))
        self.name = f"CouchDB {said['version']}" if "couchdb" in said else f"pouchdb-server {said.get('version')}"

    def _start(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.home = harness.Workspace()
        server = PEERS / "node_modules" / ".bin" / "pouchdb-server"
        command = [server, "-m", "-p", str(port), "-o", "127.0.0.1", "-n"]
        self.process = subprocess.Popen(command, cwd=self.home.path, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.05)
        sys.exit("pouchdb-server did not start")

    def connect(self):
        return http.client.HTTPConnection(self.host, self.port, timeout=300)

    def ask(self, method, path, body=None, connection=None):
        connection = connection or self.connect()
        connection.request(method, path, body, self.headers)
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 300:
            sys.exit(f"{method} {path}: {answer.status} {data[:200]!r}")
        return data

    def database(self, name):
        """A new, empty database."""
        name = f"plainfold-bench-{name}"
        connection = self.connect()
        connection.request("DELETE", f"/{name}", headers=self.headers)
        connection.getresponse().read()
        self.ask("PUT", f"/{name}", connection=connection)
        self.added.append(name)
        return name

    def fill(self, name, count, body):
        connection = self.connect()
        for first in range(1, count + 1, 2000):
            rows = ",".join(body(number) for number in range(first, min(first + 2000, count + 1)))
            self.ask("POST", f"/{name}/_bulk_docs", f'{{"new_edits":false,"docs":[{rows}]}}', connection)

    def count(self, name):
        return json.loads(self.ask("GET", f"/{name}"))["doc_count"]

    def close(self):
        for name in self.added:
            connection = self.connect()
            connection.request("DELETE", f"/{name}", headers=self.headers)
            connection.getresponse().read()
        if self.process:
            self.process.terminate()
            self.process.wait()
            shutil.rmtree(self.home.path, ignore_errors=True)


class Bench:
    """What all cases share."""

    def __init__(self, options, shm):
        self.options, self.shm, self.rows = options, shm, []
        self._server, self._feeds = None, {}

    @property
    def server(self):
        if self._server is None:
            self._server = Server(self.options.server)
        return self._server

    @property
    def small(self):
        """A database of 50,000 documents of 400 bytes."""
        if not hasattr(self, "_small"):
            self._small = self.server.database("small")
            self.server.fill(self._small, self.options.served, lambda n: harness.document(n, SMALL)[2])
        return self._small

    def feed(self, count):
        if count not in self._feeds:
            self._feeds[count] = self.shm / f"documents-{count}.ndjson"
            harness.write_feed(self._feeds[count], count, 500)
        return self._feeds[count]

    def places(self):
        sized = argparse.Namespace(documents=self.options.documents, directory=self.options.directory)
        return list(speed.places(self.shm, sized))

    def in_turn(self, *sides):
        """The best seconds of each side; every side runs once a round."""
        best = [None] * len(sides)
        for _ in range(self.options.rounds):
            for index, side in enumerate(sides):
                seconds = side()
                best[index] = min(seconds, best[index] or seconds)
        return best

    def add(self, case, place, peer, ours, theirs, goal, met, value):
        row = {"case": case, "place": place, "peer": peer, "ours": ours, "theirs": theirs, "goal": goal, "met": met}
        row["value"] = value
        self.rows.append(row)
        print(f"{case} ({place}): {value}; to reach: {goal}; {'met' if met else 'NOT MET'}", file=sys.stderr)

    def close(self):
        if self._server:
            self._server.close()


def per_second(count, seconds):
    return f"{count / seconds:,.0f}/s"


def folders(tree):
    return sum(1 for entry in os.scandir(tree) if entry.is_dir())


def expect(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found} instead of {wanted}")


def feed_beside_bare(bench):
    """100,000 documents of 500 bytes into folders, beside the least that a program can do."""
    options, bare = bench.options, harness.binary("examples/bare", speed.HOW)
    feed, count = bench.feed(options.documents), options.documents
    for place in bench.places():
        syncs = speed.count_syncs(feed, place) or count // 1000

        def ours():
            root = place.fresh()
            usage = harness.mirror(f"feed:{feed}", root / "mirror")
            expect(folders(root / "mirror" / f"documents-{count}"), count, "folders")
            return usage.seconds

        def theirs():
            return harness.run([bare, place.fresh() / "bare", count, syncs, 500]).seconds

        mine, bares = bench.in_turn(ours, theirs)
        place.close()
        ratio = mine / bares
        bench.add(
            "a feed into folders", place.name, "the bare program", per_second(count, mine),
            per_second(count, bares), "at most 1.1 × its time", ratio <= 1.1, f"{ratio:.2f} × its time",
        )


def feed_beside_rxdb(bench):
    """The same beside RxDB's backup plugin, which syncs nothing."""
    for batch, count, times in ((10, 20_000, 8.0), (1000, 100_000, 1.5)):
        for place in bench.places():
            feed = bench.feed(count)

            def ours():
                return harness.mirror(f"feed:{feed}", place.fresh() / "mirror").seconds

            def theirs():
                root = place.fresh() / "backup"
                command = ["node", PEERS / "rxdb.mjs", root, str(count), "500", str(batch)]
                said = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, cwd=PEERS)
                expect(sum(1 for _ in root.rglob("document.json")), count, "documents of the plugin")
                return float(said.stdout)

            mine, plugins = bench.in_turn(ours, theirs)
            place.close()
            ratio = plugins / mine
            bench.add(
                f"the same, {count:,} documents", place.name, f"RxDB's plugin, batch {batch:,}",
                per_second(count, mine), per_second(count, plugins), f"{times:g} × as fast", ratio >= times,
                f"{ratio:.1f} × as fast",
            )


def server_beside_couchbackup(bench):
    """50,000 documents of 400 bytes from a server into folders, beside couchbackup and curl."""
    server, name, count = bench.server, bench.small, bench.options.served
    for place in bench.places():
        tmpfs = place.name == "tmpfs"

        def ours():
            root = place.fresh()
            usage = harness.mirror(f"{server.url}/{name}", root / "mirror")
            expect(folders(root / "mirror" / name), count, "folders")
            return usage.seconds

        def couchbackup():
            root = place.fresh()
            command = [PEERS / "node_modules" / ".bin" / "couchbackup", "--url", server.url, "--db", name]
            usage = harness.run([*command, "--output", root / "backup.txt", "--log", root / "backup.log"])
            with open(root / "backup.txt") as lines:
                expect(sum(line.count('"_id"') for line in lines), count, "documents of couchbackup")
            return usage.seconds

        def curl():
            url = f"{server.url}/{name}/_changes?include_docs=true"
            return harness.run(["curl", "-sf", "-o", "/dev/null", url]).seconds

        mine, backups, curls = bench.in_turn(ours, couchbackup, curl)
        place.close()
        bench.add(
            "a server into folders", place.name, "couchbackup into one file", per_second(count, mine),
            per_second(count, backups), "faster", mine < backups, f"{backups / mine:.1f} × as fast",
        )
        ratio = mine / curls
        bench.add(
            "a server into folders", place.name, "curl into /dev/null", per_second(count, mine),
            per_second(count, curls), "at most 1.3 × its time" if tmpfs else "(on tmpfs)",
            ratio <= 1.3 or not tmpfs, f"{ratio:.2f} × its time",
        )


def attachments(bench):
    """5,000 documents with an attachment of 4 KB, beside one GET each over one connection."""
    server, count = bench.server, 5_000
    name = server.database("attached")

    def body(number):
        data = b64encode(number.to_bytes(8, "big") * 512).decode()
        attachment = f'{{"a.bin":{{"content_type":"application/octet-stream","data":"{data}"}}}}'
        return f'{{"_id":"doc-{number:05}","_rev":"1-a","_attachments":{attachment}}}'

    for first in range(1, count + 1, 500):
        rows = ",".join(body(number) for number in range(first, first + 500))
        server.ask("POST", f"/{name}/_bulk_docs", f'{{"new_edits":false,"docs":[{rows}]}}')
    place = bench.places()[0]

    def ours():
        root = place.fresh()
        usage = harness.mirror(f"{server.url}/{name}", root / "mirror")
        expect((root / "mirror" / name / f"doc-{count:05}" / "attachments" / "a.bin").stat().st_size, 4096, "bytes")
        return usage.seconds

    def gets():
        config = bench.shm / "gets"
        with open(config, "w") as urls:
            for number in range(1, count + 1):
                urls.write(f'url = "{server.url}/{name}/doc-{number:05}/a.bin"\noutput = "/dev/null"\n')
        return harness.run(["curl", "-sf", "-K", config]).seconds

    mine, theirs = bench.in_turn(ours, gets)
    place.close()
    ratio = theirs / mine
    bench.add(
        "5,000 attachments of 4 KB", place.name, "one GET each", per_second(count, mine),
        per_second(count, theirs), "3 × as fast", ratio >= 3, f"{ratio:.1f} × as fast",
    )


def growth(bench):
    """10,000, 100,000 and 1,000,000 documents: the time for each; then a catch-up with nothing to do."""
    place = bench.places()[0]
    times = {}
    for count in (10_000, 100_000, bench.options.many):
        feed, best = bench.feed(count), None
        for _ in range(bench.options.rounds if count < 1_000_000 else 1):
            root = place.fresh()
            seconds = harness.mirror(f"feed:{feed}", root / "mirror").seconds
            best = min(seconds, best or seconds)
        times[count] = best / count
    ratio = max(times.values()) / min(times.values())
    each = ", ".join(f"{value * 1e6:.1f}" for value in times.values())
    bench.add(
        f"growth to {bench.options.many:,} documents", place.name, "itself", f"{each} µs a document", "",
        "within 1.3 ×", ratio <= 1.3, f"{ratio:.2f} ×",
    )
    runs = [harness.mirror(f"feed:{feed}", root / "mirror", watch_memory=True) for _ in range(5)]
    best, peak = min(run.seconds for run in runs), max(run.peak for run in runs) / MIB
    place.close()
    bench.add(
        f"nothing to do, {bench.options.many:,} documents", place.name, "", f"{best * 1000:.0f} ms, {peak:.0f} MiB", "",
        "under 100 ms and 40 MiB", best < 0.1 and peak < 40, f"{best * 1000:.0f} ms",
    )


def live(bench):
    """From the server's 201 to the file on disk."""
    server, place = bench.server, bench.places()[0]
    name, root = server.database("live"), place.fresh()
    command = [harness.plainfold(), "mirror", f"{server.url}/{name}", root / "mirror", "--live"]
    running = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    connection, delays = server.connect(), []
    try:
        for number in range(330):
            server.ask("PUT", f"/{name}/doc-{number}", '{"n":%d}' % number, connection)
            begun, path = time.monotonic(), root / "mirror" / name / f"doc-{number}" / "document.json"
            while not path.exists():
                if time.monotonic() - begun > 30:
                    sys.exit(f"{path} did not come")
                time.sleep(0.0002)
            delays.append((time.monotonic() - begun) * 1000)
            time.sleep(0.01)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()
        place.close()
    # The first ones are not live yet.
    delays = sorted(delays[30:])
    median, late = statistics.median(delays), delays[int(len(delays) * 0.99)]
    bench.add(
        "live, from the 201 to the file", place.name, "", f"median {median:.1f} ms, 99 % within {late:.1f} ms", "",
        "5 ms and 50 ms", median < 5 and late < 50, f"{median:.1f} ms",
    )


def verify(bench):
    """100,000 documents verified, beside sha256sum."""
    place, count = bench.places()[0], bench.options.documents
    root = place.fresh()
    harness.mirror(f"feed:{bench.feed(count)}", root / "mirror")

    def ours():
        return harness.run([harness.plainfold(), "verify", root / "mirror"]).seconds

    def theirs():
        tree = root / "mirror" / f"documents-{count}"
        return harness.run(["sh", "-c", f"find '{tree}' -type f | xargs sha256sum > /dev/null"]).seconds

    mine, sums = bench.in_turn(ours, theirs)
    place.close()
    bench.add(
        "verify", place.name, "find … | xargs sha256sum", per_second(count, mine), per_second(count, sums),
        "faster", mine < sums, f"{sums / mine:.1f} × as fast",
    )


def restore(bench):
    """50,000 documents from folders into a server, beside couchrestore from its one file."""
    server, name, count, place = bench.server, bench.small, bench.options.served, bench.places()[0]
    root = place.fresh()
    harness.mirror(f"{server.url}/{name}", root / "mirror")
    tool = lambda one: PEERS / "node_modules" / ".bin" / one
    harness.run([tool("couchbackup"), "--url", server.url, "--db", name, "--output", root / "backup.txt", "--log", root / "log"])

    def ours():
        target = server.database("restored")
        seconds = harness.run([harness.plainfold(), "restore", root / "mirror", f"{server.url}/{target}"]).seconds
        expect(server.count(target), count, "documents restored")
        return seconds

    def theirs():
        target = server.database("couchrestored")
        with open(root / "backup.txt") as backup:
            begun = time.monotonic()
            command = [tool("couchrestore"), "--url", server.url, "--db", target]
            subprocess.run(list(map(str, command)), stdin=backup, check=True, capture_output=True)
            seconds = time.monotonic() - begun
        expect(server.count(target), count, "documents restored by couchrestore")
        return seconds

    mine, couchrestore = bench.in_turn(ours, theirs)
    place.close()
    bench.add(
        "restore", place.name, "couchrestore from one file", per_second(count, mine),
        per_second(count, couchrestore), "at least as fast", mine <= couchrestore, f"{couchrestore / mine:.1f} × as fast",
    )


CASES = {
    "bare": feed_beside_bare,
    "rxdb": feed_beside_rxdb,
    "couchbackup": server_beside_couchbackup,
    "attachments": attachments,
    "growth": growth,
    "live": live,
    "verify": verify,
    "restore": restore,
}


def install():
    for tool in TOOLS:
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed for the peers")
    PEERS.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "rxdb.mjs"):
        shutil.copy(ROOT / "benches" / "peers" / name, PEERS)
    command = ["npm", "install", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(command, cwd=PEERS, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--server", help="http://admin:password@host:port of a CouchDB; else a pouchdb-server is started")
    parser.add_argument("--documents", type=int, default=100_000, help="in the feed")
    parser.add_argument("--served", type=int, default=50_000, help="documents of the server")
    parser.add_argument("--many", type=int, default=1_000_000, help="documents that it may grow to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="measure here instead of on ext4 in memory")
    parser.add_argument("--write", action="store_true", help="put table and chart into benches/README.md")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    harness.plainfold()
    install()
    with harness.Workspace("/dev/shm") as shm:
        bench = Bench(options, shm)
        try:
            for name in options.cases or CASES:
                CASES[name](bench)
        finally:
            bench.close()
        name = bench._server.name if bench._server else None
    lines = chart.table(bench.rows, name)
    print("\n".join(lines))
    if options.write:
        chart.write(ROOT / "benches", lines, bench.rows)
    return 0 if all(row["met"] for row in bench.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
