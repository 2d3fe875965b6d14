#!/usr/bin/env python3
"""Plainfold beside RxDB's backup plugin on a running RxDatabase, and what each costs the application.

    cargo build --release && python3 benches/rxdb.py [--documents 100000] [--rounds 3] [--directory DIR] [--write]

The same documents, in memory, are backed up into the same directory by both: once, and live, a document at a time. The
event loop's delay is that of the process in which the database is, which Plainfold reads from outside and the plugin works
in. Plainfold's seconds are those of its whole process, and it syncs what it writes; the plugin does not. The best round of
each counts. With `--write` the tables take their place in the README; otherwise they are printed only. The packages come
from npm, into `clients/rxdb/node_modules`.
"""

import argparse
import json
import os
import subprocess
import sys

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import harness

CLIENT = harness.ROOT / "clients" / "rxdb"
BEGIN, END = "<!-- rxdb: begin -->", "<!-- rxdb: end -->"
SIDES = (
    ("nobody", "nobody", 0),
    ("Plainfold", "plainfold", 0),
    ("the plugin, batch 10", "plugin", 10),
    ("the plugin, batch 1,000", "plugin", 1000),
)


def measure(options, what, who, count, batch):
    environment = {**os.environ, "PLAINFOLD": str(harness.plainfold())}
    with harness.Workspace(options.directory) as place:
        command = ["node", CLIENT / "bench.mjs", what, who, place / "backup", count, options.size, batch]
        said = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=environment)
        if what == "backup" and who != "nobody":
            found = sum(1 for _ in (place / "backup").rglob("document.json"))
            if found != count:
                sys.exit(f"{who}: {found} documents instead of {count}")
    return json.loads(said.stdout)


def best(options, what, who, count, batch):
    """The round with the least of its first value: seconds, or the median delay."""
    rounds = [measure(options, what, who, count, batch) for _ in range(options.rounds)]
    return min(rounds, key=lambda one: next(iter(one.values())))


def once(options):
    """The lines for one backup by each side."""
    rows = []
    for name, who, batch in SIDES:
        found = best(options, "backup", who, options.documents, batch)
        seconds = found["seconds"]
        speed = "" if who == "nobody" else f"{options.documents / seconds:,.0f}/s"
        delays = [f"{found[key]:.1f}" for key in ("median", "p99", "worst")]
        rows.append((name, f"{seconds:.2f}", speed, *delays, f"{found['cpu']:.2f}"))
    head = ("who reads", "seconds", "documents", "event loop's delay, ms: median", "p99", "worst", "CPU in the application, s")
    return [f"{options.documents:,} documents of {options.size} bytes, once:", "", *harness.table_lines(head, rows)]


def live(options):
    """The lines for each side following."""
    rows = []
    for name, who, batch in SIDES[1:]:
        found = best(options, "live", who, options.live, batch)
        rows.append((name, *(f"{found[key]:.1f}" for key in ("median", "p99"))))
    head = ("who writes", "median, ms", "p99, ms")
    return [f"{options.live} documents, one by one, from the write to the file:", "", *harness.table_lines(head, rows)]


def write(lines):
    """Writes them to the README."""
    readme = harness.ROOT / "benches" / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(before + "\n".join([BEGIN, "", *lines, "", END]) + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--live", type=int, default=300, help="documents written one by one")
    parser.add_argument("--size", type=int, default=500, help="bytes of a document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="where to write [default: the temporary directory]")
    parser.add_argument("--write", action="store_true", help="put the tables into benches/README.md")
    options = parser.parse_args()
    if not (CLIENT / "node_modules").exists():
        # npm's output is not part of the tables.
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(npm, check=True, cwd=CLIENT, stdout=sys.stderr)
    lines = [*once(options), "", *live(options)]
    print("\n".join(lines))
    if options.write:
        write(lines)


main()
