"""What is invented is hostile, is the same again for the same seed, and is found again on a server."""

import contextlib
import io
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import equal
import fake
import generate
import oracle
import roundtrip

# A test run by itself nests as deep as the commands do.
sys.setrecursionlimit(20_000)
SEEDS = range(6)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="oracle-"))
        self.addCleanup(shutil.rmtree, self.folder)


class GenerateCase(Case):
    def content(self, seed, name):
        feed = generate.record(self.folder / name, generate.Database(seed, "feed"))
        files = sorted((self.folder / name / "files").iterdir())
        return Path(feed).read_bytes(), [(file.name, file.read_bytes()) for file in files]

    def test_the_same_seed_gives_the_same_and_another_another(self):
        self.assertEqual(self.content(7, "a"), self.content(7, "b"))
        self.assertNotEqual(self.content(7, "a"), self.content(8, "c"))
        one, other = (generate.Database(7, "couchdb").manifest() for _ in range(2))
        self.assertEqual(one, other)

    def test_a_feed_ends_in_what_the_manifest_says(self):
        for seed in SEEDS:
            database = generate.Database(seed, "feed")
            feed = generate.record(self.folder / str(seed), database)
            live, gone = oracle.final_state(feed)["generated"]
            expected = database.manifest()["documents"]
            self.assertEqual(gone, {true_id for true_id, facts in expected.items() if facts["deleted"]})
            self.assertEqual(live.keys() | gone, expected.keys())
            for true_id, text in live.items():
                body = oracle.parse(text)
                self.assertEqual(body.last("_rev"), expected[true_id]["winner"])
                data = {name: oracle.attachment_bytes(entry, os.path.dirname(feed)) for name, entry in body.last("_attachments", [])}
                winner = next(leaf for leaf in expected[true_id]["leaves"] if leaf["revisions"][0] == body.last("_rev"))
                digests = {name: facts["digest"] for name, facts in winner["attachments"].items()}
                self.assertEqual({name: oracle.md5(one) for name, one in data.items()}, digests)

    def test_everything_hostile_comes_up_within_some_seeds(self):
        databases = [generate.Database(seed, "feed") for seed in SEEDS]
        documents = [document for database in databases for document in database.documents]
        leaves = [leaf for document in documents for leaf in document.leaves]
        ids = {document.id for document in documents}
        self.assertLessEqual({"..", "\0", "CON", "_design/a/b", "café", "cafe\u0301", "x" * 201}, ids)
        self.assertFalse([true_id for true_id in ids if true_id.startswith("_") and not true_id.startswith("_design/")])
        names = {one.name for leaf in leaves for one in leaf.attachments}
        self.assertEqual(names, set(generate.NAMES))
        self.assertEqual({one.content_type for leaf in leaves for one in leaf.attachments}, set(generate.TYPES))
        sizes = {len(one.data) for leaf in leaves for one in leaf.attachments}
        self.assertEqual((min(sizes), max(sizes) > 300_000), (0, True))
        bodies = "".join(generate.text_of(document, leaf, generate.inline) for document in documents for leaf in document.leaves)
        for text in ["1e400", "9007199254740993", ":-0,", "[" * 100, "\\ud800", "\\u0000", '"":', '{"_attachments":{"_attachments":']:
            self.assertIn(text, bodies)
        lengths = {len(leaf.revisions) for leaf in leaves}
        self.assertTrue(1 in lengths and max(lengths) >= 30, lengths)
        shapes = {
            (document.winner.deleted, any(leaf.deleted for leaf in document.leaves), len(document.leaves) > 1)
            for document in documents
        }
        possible = {(True, True, True), (True, True, False), (False, True, True), (False, False, True), (False, False, False)}
        self.assertEqual(shapes, possible)
        # The longest branch is deleted, and a shorter one wins.
        longest = lambda document: max(document.leaves, key=lambda leaf: len(leaf.revisions))
        self.assertTrue(any(longest(one).deleted and not one.winner.deleted for one in documents))
        self.assertTrue(any(leaf.deleted and leaf.members for leaf in leaves), "tombstones with bodies")

    def test_what_a_server_was_given_is_found_there_and_what_it_lost_is_named(self):
        server = fake.Fake()
        self.addCleanup(server.close)
        for kind in ("couchdb", "pouchdb"):
            database = generate.Database(3, kind)
            for name in ("one", "two"):
                generate.fill(server.url(name), database)
                self.assertEqual(roundtrip.holds(server.url(name), database)[0], [])
            self.assertEqual(equal.compare(server.url("one"), server.url("two"), leaves=True, security=True)[0], [])
        true_id, leaves = next((true_id, leaves) for true_id, leaves in server.databases["two"].items() if len(leaves) > 2)
        leaves.popitem()
        faults, _ = roundtrip.holds(server.url("two"), database)
        self.assertEqual(len(faults), 1, faults)
        self.assertTrue(faults[0].startswith(repr(true_id)), faults)

    def test_a_server_that_refuses_a_document_is_an_error(self):
        server = fake.Fake()
        self.addCleanup(server.close)
        answer = server.answer
        server.answer = lambda method, path, body: '[{"id":"x"}]' if path.endswith("_bulk_docs") else answer(method, path, body)
        with self.assertRaisesRegex(RuntimeError, "seed 3"):
            generate.fill(server.url("one"), generate.Database(3, "couchdb"))


class TreeCase(Case):
    def write(self, path, text):
        path = self.folder / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def differs(self, spelling):
        return bool(roundtrip.compare_trees(self.folder / "a", self.folder / "b", spelling)[0])

    def test_trees_that_differ_are_not_called_equal(self):
        self.assertTrue(self.differs(True), "empty ones prove nothing")
        body = '{"a":1.0,"_attachments":%s}\n'
        stub = '{"n":{"content_type":"x/y","revpos":1,"stub":true}}'
        for tree in "ab":
            self.write(f"{tree}/one/document.json", body % stub)
        self.assertFalse(self.differs(True))
        self.write("b/one/document.json", body % stub.replace('"revpos":1,', ""))
        self.assertEqual((self.differs(True), self.differs(False)), (True, False))
        for wrong in [stub.replace("x/y", "x/z"), stub.replace('"n"', '"m"'), "{}"]:
            self.write("b/one/document.json", body % wrong)
            self.assertTrue(self.differs(False), wrong)
        self.write("b/one/document.json", (body % stub).replace("1.0", "1"))
        self.assertTrue(self.differs(False))
        self.write("b/one/document.json", body % stub)
        self.write("b/one/attachments/n", "x")
        self.assertTrue(self.differs(False))


class RoundtripCase(Case):
    def run_with(self, plainfold, *more):
        out, error = io.StringIO(), io.StringIO()
        out.reconfigure = lambda **_: None
        arguments = ["--plainfold", plainfold, "--seeds", "4", "--keep", str(self.folder), *more]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            return roundtrip.main(arguments), out.getvalue(), error.getvalue()

    def program(self, script):
        program = self.folder / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return str(program)

    def test_a_program_that_fails_or_does_nothing_is_not_called_faithful(self):
        code, said, _ = self.run_with(self.program("echo broken >&2; exit 3"))
        self.assertEqual(code, 1)
        self.assertIn("seed 4: `plainfold mirror feed:", said)
        self.assertIn("ends with 3:\nbroken", said)
        shutil.rmtree(self.folder / "4")
        code, said, _ = self.run_with(self.program("exit 0"))
        self.assertEqual(code, 1)
        self.assertIn("seed 4: the mirror is not the feed:", said)

    def test_a_program_that_is_not_there_is_no_verdict(self):
        self.assertEqual(self.run_with(str(self.folder / "nowhere"))[0], 2)

    def test_the_password_is_in_no_argument_and_in_no_message(self):
        server = fake.Fake()
        self.addCleanup(server.close)
        program = self.program('echo "$@"; [ "$PLAINFOLD_SOURCE_PASSWORD" = "open sesame" ] && echo given; exit 3')
        url = server.url("").replace("http://", "http://ana:open%20sesame@")
        code, said, error = self.run_with(program, "--server", url)
        self.assertEqual(code, 1, error)
        self.assertIn("given", said)
        self.assertIn("http://ana@127.0.0.1", said)
        self.assertNotIn("sesame", said + error)

    def test_a_pair_of_seeds_is_a_range(self):
        self.assertEqual((list(roundtrip.seeds("2..4")), list(roundtrip.seeds("5"))), ([2, 3, 4], [5]))


if __name__ == "__main__":
    unittest.main()
