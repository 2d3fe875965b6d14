"""Two databases that differ in one thing are never called equal: each kind of difference, once."""

import contextlib
import io
import os
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import equal
import fake
import oracle

HISTORY = '"_revisions":{"start":2,"ids":["b","a"]}'
NOTE = '"_attachments":{"n 1":{"content_type":"text/plain","revpos":1,"data":"bm90ZQ=="}}'
SECURITY = '{"admins":{"names":["ana"]}}'
LEAVES = {
    "plain": ['{"_id":"plain","_rev":"2-b",%s,"n":1.0,"m":2}' % HISTORY],
    "noted": ['{"_id":"noted","_rev":"2-b",%s,"x":1,%s}' % (HISTORY, NOTE)],
    "split": [
        '{"_id":"split","_rev":"2-b",%s,"branch":"wins"}' % HISTORY,
        '{"_id":"split","_rev":"2-ab","_revisions":{"start":2,"ids":["ab","a"]},"branch":"loses",%s}' % NOTE,
    ],
    "gone": ['{"_id":"gone","_rev":"2-b",%s,"_deleted":true,"why":"lost"}' % HISTORY],
}


class Case(unittest.TestCase):
    def setUp(self):
        self.left, self.right = fake.Fake(), fake.Fake()
        for server in (self.left, self.right):
            self.addCleanup(server.close)
            server.securities["books"] = SECURITY
            server.databases["books"] = {}
            for true_id, texts in LEAVES.items():
                leaves = [oracle.parse(text) for text in texts]
                server.databases["books"][true_id] = {leaf.last("_rev"): leaf for leaf in leaves}

    def faults(self, **options):
        return equal.compare(self.left.url("books"), self.right.url("books"), **options)[0]

    def change(self, true_id, old, new, revision="2-b"):
        leaves = self.right.databases["books"][true_id]
        text = fake.text(leaves[revision])
        self.assertIn(old, text)
        leaf = oracle.parse(text.replace(old, new))
        del leaves[revision]
        leaves[leaf.last("_rev")] = leaf

    def assert_differs(self, words, **options):
        faults = self.faults(**options)
        self.assertTrue(any(words in fault for fault in faults), faults)

    def assert_only_leaves_differ(self, words):
        self.assertEqual(self.faults(security=True), [])
        self.assert_differs(words, leaves=True)


class WinnerCase(Case):
    def test_what_is_equal_is_called_equal(self):
        urls = self.left.url("books"), self.right.url("books")
        self.assertEqual(equal.compare(*urls), ([], "equal: 3 documents, 1 attachments"))
        said = "equal: 3 documents, 1 attachments, 5 branches, 1 of them deleted"
        self.assertEqual(equal.compare(*urls, leaves=True, security=True), ([], said))

    def test_a_document_that_only_one_has(self):
        del self.right.databases["books"]["plain"]
        self.assert_differs("the document 'plain' is only at the left")

    def test_a_document_that_is_deleted(self):
        self.change("plain", '"m"', '"_deleted":true,"m"')
        self.assert_differs("the document 'plain' is only at the left")

    def test_a_deleted_document_that_lives(self):
        self.change("gone", '"_deleted":true,', "")
        self.assert_differs("the document 'gone' is only at the right")

    def test_another_revision(self):
        self.change("plain", '"_rev":"2-b"', '"_rev":"2-c"')
        self.assert_differs("'plain': the left one is at 2-b, the right one at 2-c")

    def test_another_spelling_of_a_number(self):
        self.change("plain", "1.0", "1")
        self.assert_differs("'plain': the body differs")

    def test_another_order(self):
        self.change("plain", '"n":1.0,"m":2', '"m":2,"n":1.0')
        self.assert_differs("'plain': the body differs")
        # Among stores of different kinds it says nothing.
        self.right.welcome = '{"express-pouchdb":"Welcome!","version":"0"}'
        self.assertEqual(self.faults(), [])

    def test_a_key_that_stands_twice(self):
        self.change("plain", '"m":2', '"m":1,"m":2')
        self.assert_differs("'plain': the body differs")
        self.right.welcome = '{"express-pouchdb":"Welcome!","version":"0"}'
        self.assert_differs("'plain': the body differs")

    def test_other_bytes_in_an_attachment(self):
        self.change("noted", "bm90ZQ==", "bm90ZXM=")
        self.assert_differs("attachment 'n 1': 4 bytes")

    def test_another_content_type(self):
        self.change("noted", "text/plain", "text/html")
        self.assert_differs("attachment 'n 1': content_type is 'text/plain', at the right 'text/html'")

    def test_an_attachment_that_came_at_another_time(self):
        self.change("noted", '"revpos":1', '"revpos":2')
        self.assert_differs("attachment 'n 1': revpos")

    def test_an_attachment_that_only_one_has(self):
        self.change("noted", "n 1", "n 2")
        self.assert_differs("the attachment 'n 1' is only at the left")
        self.change("noted", "," + fake.text(oracle.parse("{%s}" % NOTE.replace("n 1", "n 2")))[1:-1], "")
        self.assert_differs("'noted': the body differs")

    def test_another_security(self):
        self.right.securities["books"] = "{}"
        self.assertEqual(self.faults(leaves=True), [])
        self.assert_differs("_security differs", security=True)


class LeafCase(Case):
    """What a comparison of winners does not see."""

    def test_a_losing_branch_is_missing(self):
        del self.right.databases["books"]["split"]["2-ab"]
        self.assert_only_leaves_differ("the branch '2-ab' is only at the left")
        self.assert_differs("'split': the right one does not know 2-ab", leaves=True)

    def test_a_branch_too_many(self):
        self.right.databases["books"]["plain"]["1-x"] = oracle.parse(
            '{"_id":"plain","_rev":"1-x","_revisions":{"start":1,"ids":["x"]}}'
        )
        self.assert_only_leaves_differ("the branch '1-x' is only at the right")
        self.assert_differs("'plain': the left one does not know 1-x", leaves=True)

    def test_a_losing_branch_is_deleted(self):
        self.change("split", '"branch"', '"_deleted":true,"branch"', "2-ab")
        self.assert_only_leaves_differ("'split', branch 2-ab: deleted only at the right")

    def test_a_losing_branch_has_another_body(self):
        self.change("split", "loses", "wins", "2-ab")
        self.assert_only_leaves_differ("'split', branch 2-ab: the body differs")

    def test_a_losing_branch_has_other_attachments(self):
        self.change("split", "bm90ZQ==", "bm90ZXM=", "2-ab")
        self.assert_only_leaves_differ("'split', branch 2-ab: attachment 'n 1': 4 bytes")
        self.change("split", "n 1", "n 2", "2-ab")
        self.assert_only_leaves_differ("the attachment 'n 1' is only at the left")

    def test_a_tombstone_is_missing(self):
        del self.right.databases["books"]["gone"]
        self.assert_only_leaves_differ("the document or tombstone 'gone' is only at the left")

    def test_the_body_of_a_tombstone_is_missing(self):
        self.change("gone", ',"why":"lost"', "")
        self.assert_only_leaves_differ("'gone', branch 2-b: the body differs")

    def test_a_history_is_shorter(self):
        self.change("plain", '["b","a"]', '["b"]')
        self.assert_only_leaves_differ("'plain', branch 2-b: 2 revisions of history, at the right 1")
        self.assert_differs("'plain': the right one does not know 1-a", leaves=True)


class CommandCase(Case):
    def ask(self, *arguments):
        out = io.StringIO()
        out.reconfigure = lambda **_: None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            return oracle.main(["equal", self.left.url("books"), *arguments]), out.getvalue()

    def test_the_exit_code_says_it_too(self):
        self.assertEqual(self.ask(self.right.url("books")), (0, "equal: 3 documents, 1 attachments\n"))
        del self.right.databases["books"]["split"]["2-ab"]
        self.assertEqual(self.ask(self.right.url("books"), "--security")[0], 0)
        self.assertEqual(self.ask(self.right.url("books"), "--leaves")[0], 1)
        self.assertEqual(self.ask(self.right.url("books"), "--leafs")[0], 2)
        self.assertEqual(self.ask(self.right.url("films"))[0], 2)


if __name__ == "__main__":
    unittest.main()
