#!/usr/bin/env python3
"""How fast documents become folders, against the least that any program can do.

    cargo build --release --bin plainfold --example bare && python3 benches/speed.py

Mirrors a feed of 100,000 documents of 500 bytes, and makes the same tree with the bare program of
`benches/bare.rs`, which calls `syncfs` as often as Plainfold did (counted by `strace` in a run that
is not timed). Both run in turn, several times, on tmpfs and on an ext4 image that lies in tmpfs
(where root allows a loop mount; else in the directory given by --directory). The best run of each
counts, because whatever else the machine does can only make a run slower. The processor time is
told too: it is less noisy than the clock.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import harness
from harness import MIB

HOW = "cargo build --release --bin plainfold --example bare"


class Tmpfs:
    """A directory in memory."""

    name = "tmpfs"

    def __init__(self, shm):
        self.root = shm / "tmpfs"

    def fresh(self):
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        return self.root

    def close(self):
        shutil.rmtree(self.root, ignore_errors=True)


class Ext4:
    """A new ext4 file system for every run, in a file in memory."""

    name = "ext4 in memory"

    def __init__(self, shm, size):
        self.image, self.root, self.size = shm / "ext4.img", shm / "ext4", size
        self.root.mkdir(exist_ok=True)
        self.mounted = False

    def fresh(self):
        self.close()
        with open(self.image, "wb") as image:
            image.truncate(self.size)
        # Nothing is left for the kernel to initialise while a run is being timed.
        lazy = "lazy_itable_init=0,lazy_journal_init=0"
        subprocess.run(["mkfs.ext4", "-q", "-E", lazy, self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.root], check=True)
        self.mounted = True
        inside = self.root / "work"
        inside.mkdir()
        return inside

    def close(self):
        if self.mounted:
            subprocess.run(["umount", self.root], check=True)
            self.mounted = False
        self.image.unlink(missing_ok=True)


class Directory(Tmpfs):
    """Whatever file system a directory has."""

    name = "directory"


def places(shm, options):
    yield Tmpfs(shm)
    if options.directory:
        yield Directory(Path(options.directory))
    elif os.geteuid() == 0 and shutil.which("mkfs.ext4"):
        # A folder and a file take a block of 4 KiB and an inode each.
        yield Ext4(shm, max(1024 * MIB, options.documents * 40 * 1024))
    else:
        print("no ext4: a loop mount takes root; name a directory with --directory", file=sys.stderr)


def count_syncs(feed, place):
    """How often Plainfold makes the file system durable for this feed."""
    root = place.fresh()
    if not shutil.which("strace"):
        return None
    counts = root / "counts"
    command = ["strace", "-f", "-c", "-o", counts, "-e", "trace=syncfs", harness.plainfold()]
    harness.run([*command, "mirror", f"feed:{feed}", root / "mirror", "--progress", "never"])
    for line in counts.read_text().splitlines():
        if line.split()[-1:] == ["syncfs"]:
            return int(line.split()[3])
    return 0


def check(root, options):
    """What was measured is a whole mirror."""
    tree = root / "mirror" / "documents"
    count = sum(1 for _ in os.scandir(tree))
    name, _, body = harness.document(options.documents, options.size)
    if count != options.documents or (tree / name / "document.json").read_text() != body + "\n":
        sys.exit(f"{tree} is not what the feed holds")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=500, help="of a document, in bytes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", help="measure here instead of on ext4 in memory")
    parser.add_argument("--only", choices=["tmpfs", "other"], help="one of the two file systems")
    options = parser.parse_args()
    plainfold, bare = harness.plainfold(), harness.binary("examples/bare", HOW)
    rows = []
    with harness.Workspace("/dev/shm") as shm:
        feed = shm / "documents.ndjson"
        harness.write_feed(feed, options.documents, options.size)
        for place in places(shm, options):
            if options.only and (options.only == "tmpfs") != (place.name == "tmpfs"):
                continue
            syncs = count_syncs(feed, place) or options.documents // 1000
            ours, theirs = [], []
            for _ in range(options.rounds):
                root = place.fresh()
                ours.append(harness.mirror(f"feed:{feed}", root / "mirror"))
                check(root, options)
                root = place.fresh()
                theirs.append(harness.run([bare, root / "bare", options.documents, syncs, options.size]))
            place.close()
            rows.append(row(place.name, syncs, ours, theirs, options))
            print(rows[-1], file=sys.stderr)
    harness.table(
        [
            "file system", "time ÷ bare's", "median ÷ median", "CPU ÷ bare's", "Plainfold", "bare",
            "Plainfold user + system", "bare user + system", "syncfs each",
        ],
        rows,
    )
    return 0


def row(name, syncs, ours, theirs, options):
    seconds = lambda runs: [usage.seconds for usage in runs]
    best = lambda runs: min(runs, key=lambda usage: usage.cpu)
    rate = lambda runs: f"{options.documents / min(seconds(runs)):,.0f}/s ({min(seconds(runs)):.2f} s)"
    median = statistics.median(seconds(ours)) / statistics.median(seconds(theirs))
    return [
        name,
        f"{min(seconds(ours)) / min(seconds(theirs)):.2f}",
        f"{median:.2f}",
        f"{best(ours).cpu / best(theirs).cpu:.2f}",
        rate(ours),
        rate(theirs),
        f"{best(ours).user:.2f} + {best(ours).system:.2f} s",
        f"{best(theirs).user:.2f} + {best(theirs).system:.2f} s",
        syncs,
    ]


if __name__ == "__main__":
    sys.exit(main())
