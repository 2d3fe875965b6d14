#!/usr/bin/env python3
"""Sends invented databases through Plainfold and back, and has the oracle compare what came of them.

    roundtrip.py --plainfold BINARY --server http://admin:password@localhost:5984 --seeds 1..50
    roundtrip.py --plainfold BINARY --seeds 7             without a server: recorded feeds only

For each seed: a database of `generate.py` is mirrored and restored under another name, into a feed, and
from there into a third database; each mirror, database and tree is compared with the previous one. The
same with a recorded feed, which also contains numbers and spellings that no server keeps.

    --revisions     mirrors all branches and tombstones too, and compares them, histories and `_security`
    --keep FOLDER   works there, and leaves mirrors and feeds to look at; else they go away when all is well

On the server it makes, replaces and deletes databases named `plainfold-roundtrip-…`, and leaves those of
a seed that failed. The first difference ends a seed; the exit code is 1 if one differed, and 2 if the
trial itself could not be made. Python's standard library only.
"""

import argparse
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.parse

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import equal
import generate
import oracle

# The options of `plainfold mirror` for --revisions, besides source and directory.
ALL_REVISIONS = ["--revisions", "--deleted", "keep"]
MINUTES = 5


class Differs(Exception):
    """Something is not as it was, or Plainfold did not end well."""


class Trial:
    """One seed on its way."""

    def __init__(self, options, seed, folder):
        self.options, self.seed, self.folder = options, seed, folder
        os.makedirs(folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def plainfold(self, *arguments):
        environment = {**os.environ}
        for variable in ("PLAINFOLD_SOURCE_PASSWORD", "PLAINFOLD_TARGET_PASSWORD"):
            environment.pop(variable, None)
        if self.options.password and any(argument.startswith("http") for argument in arguments):
            kind = "TARGET" if arguments[0] == "restore" else "SOURCE"
            environment[f"PLAINFOLD_{kind}_PASSWORD"] = self.options.password
        command = [self.options.plainfold, *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, timeout=MINUTES * 60, check=False)
        if ended.returncode != 0:
            said = (ended.stdout + ended.stderr).decode(errors="backslashreplace")
            raise Differs(f"`plainfold {' '.join(arguments)}` ends with {ended.returncode}:\n{said}")

    def mirror(self, source, name, *options):
        mirror = self.path(name)
        self.plainfold("mirror", source, mirror, *options)
        self.plainfold("verify", mirror)
        return mirror

    def agree(self, what, verdict):
        faults, said = verdict
        if faults:
            more = [f"and {len(faults) - 20} more"] if len(faults) > 20 else []
            raise Differs("\n".join([f"{what}:", *faults[:20], *more]))
        return said

    # A server's database

    def through_server(self):
        source, back, again = (f"plainfold-roundtrip-{self.seed}-{end}" for end in ("source", "back", "again"))
        options = self.options
        for name in (source, back, again):
            drop(options.truth(name))
        database = generate.Database(self.seed, options.kind)
        generate.fill(options.truth(source), database)
        said = self.agree("the source does not hold what was invented", holds(options.truth(source), database))
        everything = ALL_REVISIONS if options.revisions else []
        mirror = self.mirror(options.url(source), "mirror", *everything)
        if not options.revisions:
            self.agree("the mirror is not the source", oracle.compare_with_server(options.truth(source), os.path.join(mirror, source)))
        self.plainfold("restore", mirror, options.url(), "--as", f"{source}={back}")
        self.agree("restored, it is another", self.compare(source, back, everything=options.revisions))
        second = self.mirror(options.url(back), "second", *everything)
        trees = os.path.join(mirror, source), os.path.join(second, back)
        self.agree("mirrored again, it is another", compare_trees(*trees, spelling=options.kind == "couchdb"))
        # A recorded feed carries winners only, and no security object.
        third = self.through_feed(mirror, "mirror")
        if not options.revisions:
            os.remove(os.path.join(trees[0], "_security.json"))
            self.agree("through a feed it is another", compare_trees(trees[0], os.path.join(third, source), spelling=False))
        self.plainfold("restore", third, options.url(), "--as", f"{source}={again}")
        self.agree("restored from a feed, it is another", self.compare(source, again))
        for name in (source, back, again):
            drop(options.truth(name))
        return said

    def compare(self, left, right, everything=False):
        return equal.compare(self.options.truth(left), self.options.truth(right), leaves=everything, security=everything)

    # A recorded feed

    def through_feed(self, mirror, name):
        """Puts a mirror into a feed, and mirrors that."""
        feed = self.path(f"{name}-back.ndjson")
        self.plainfold("restore", mirror, f"feed:{feed}")
        return self.mirror(f"feed:{feed}", f"{name}-of-feed")

    def recorded(self):
        feed = generate.record(self.path("recorded"), generate.Database(self.seed, "feed"))
        mirror = self.mirror(f"feed:{feed}", "recorded-mirror")
        said = self.agree("the mirror is not the feed", oracle.compare_with_feed(feed, mirror))
        again = self.through_feed(mirror, "recorded")
        collections = (os.path.join(one, "generated") for one in (mirror, again))
        self.agree("through a feed it is another", compare_trees(*collections, spelling=True))
        return said


def holds(url, database):
    """Whether a server holds every branch, tombstone and attachment of an invented database."""
    held = equal.Database(url)
    faults, branches = [], 0
    try:
        leaves = held.leaves()
    finally:
        held.server.connection.close()
    expected = {document.id: document for document in database.documents}
    faults.extend(f"{true_id!r}: nobody invented it" for true_id in held.winners if true_id not in expected)
    for true_id, document in expected.items():
        winner = held.winners.get(true_id)
        if winner is None or (winner.revision, winner.deleted) != (document.winner.revision, document.winner.deleted):
            faults.append(f"{true_id!r}: {document.winner.revision} should win")
            continue
        found = leaves[true_id]
        if sorted(found) != sorted(leaf.revision for leaf in document.leaves):
            faults.append(f"{true_id!r}: its branches are {sorted(found)}")
            continue
        for leaf in document.leaves:
            one = found[leaf.revision]
            branches += 1
            attached = {name: (stub.last("content_type"), data) for name, (stub, data) in one.attachments.items()}
            invented = {one.name: (one.content_type, one.data) for one in leaf.attachments}
            others = [name for name in {**invented, **attached} if invented.get(name) != attached.get(name)]
            if others:
                faults.append(f"{true_id!r}, branch {leaf.revision}: other attachments {others}")
            if (one.deleted, one.history) != (leaf.deleted, leaf.revisions):
                faults.append(f"{true_id!r}, branch {leaf.revision}: another history")
    live = sum(not winner.deleted for winner in held.winners.values())
    return faults, f"{live} documents, {len(expected) - live} tombstones, {branches} branches"


def drop(url):
    server = oracle.Server(url)
    try:
        server.ask("DELETE", "")
    except RuntimeError as error:
        if ": 404 " not in str(error):
            raise
    finally:
        server.connection.close()


# Two trees ------------------------------------------------------------------------------------------


def files_beneath(folder):
    found = {}
    for parent, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, os.fsencode(folder))] = oracle.read(path)
    return found


def compare_trees(left, right, spelling):
    """Compares every file. Without `spelling` stubs may differ in order, `revpos` and compression."""
    ours, theirs = files_beneath(left), files_beneath(right)
    faults = [f"{path!r} is only in one of the trees" for path in ours.keys() ^ theirs.keys()]
    for path in ours.keys() & theirs.keys():
        one, other = ours[path], theirs[path]
        if one != other and not (not spelling and path.endswith(b"/document.json") and _but_for_stubs(one, other)):
            faults.append(f"{path!r}: {one[:300]!r}\nis now {other[:300]!r}")
    if not ours:
        faults.append(f"{left} holds nothing")
    return faults, f"equal: {len(ours)} files"


def _but_for_stubs(one, other):
    one, other = (oracle.split_body(text.decode()) for text in (one, other))
    if (one[0], one[2]) != (other[0], other[2]) or (one[1] is None) != (other[1] is None):
        return False
    stubs = [sorted((name, stub.last("content_type")) for name, stub in oracle.parse(of[1])) for of in (one, other)]
    return stubs[0] == stubs[1]


# The command line -----------------------------------------------------------------------------------


def seeds(text):
    first, _, last = text.partition("..")
    return range(int(first), int(last or first) + 1)


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plainfold", required=True)
    parser.add_argument("--server")
    parser.add_argument("--seeds", type=seeds, required=True)
    parser.add_argument("--revisions", action="store_true")
    parser.add_argument("--keep")
    options = parser.parse_args(arguments)
    options.password = None
    if options.server:
        parts = urllib.parse.urlsplit(options.server)
        options.password = urllib.parse.unquote(parts.password) if parts.password else None
        plain = f"{parts.username}@" if parts.username else ""
        bare = urllib.parse.urlunsplit(parts._replace(netloc=plain + parts.netloc.rpartition("@")[2])).rstrip("/")
        # Plainfold gets the password apart from the URL; the oracle takes it from there.
        options.url = lambda name="": f"{bare}/{name}".rstrip("/")
        options.truth = lambda name: f"{options.server.rstrip('/')}/{name}"
        options.kind = generate.kind_of(options.truth("_"))
    return options


def main(arguments):
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.setrecursionlimit(20_000)
    try:
        options = options_of(arguments)
        root = options.keep or tempfile.mkdtemp(prefix="plainfold-roundtrip-")
        failed = [seed for seed in options.seeds if not tried(options, seed, os.path.join(root, str(seed)))]
    except (OSError, RuntimeError, http.client.HTTPException, subprocess.SubprocessError) as error:
        print(f"the trial cannot be made: {error}", file=sys.stderr)
        return 2
    if not failed and not options.keep:
        shutil.rmtree(root)
    if failed:
        print(f"{len(failed)} of {len(options.seeds)} seeds failed: {', '.join(map(str, failed))}; see {root}")
    return 1 if failed else 0


def tried(options, seed, folder):
    trial = Trial(options, seed, folder)
    try:
        said = [trial.through_server()] if options.server else []
        said.append("as a feed " + trial.recorded())
    except Differs as difference:
        print(f"seed {seed}: {difference}", flush=True)
        return False
    print(f"seed {seed}: {'; '.join(said)}", flush=True)
    if not options.keep:
        shutil.rmtree(folder)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
