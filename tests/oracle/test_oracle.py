"""The oracle is worth something only if it fails: each kind of fault, once.

    python3 -m unittest discover tests/oracle
"""

import base64
import contextlib
import http.server
import io
import json
import os
import shutil
import sys
import tempfile
import threading
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import fake
import oracle

NOTE = b"a note\n"
STUB = {"content_type": "text/plain", "revpos": 1, "digest": oracle.md5(NOTE), "length": len(NOTE), "stub": True}
PLAIN = '{"_id":"isbn:1", "_rev":"1-a","n":1.0,"n":2e400}'
NOTED = '{"_id":"a/b","_rev":"2-b","t":"ж","_attachments":%s,"z":[1]}'


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = Path(tempfile.mkdtemp(prefix="oracle-"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.mirror = self.directory / "mirror"
        self.write("books/isbn%3A1/document.json", PLAIN + "\n")
        self.write("books/a%2Fb/document.json", NOTED % json.dumps({"n/1.txt": STUB}) + "\n")
        self.write("books/a%2Fb/attachments/n%2F1.txt", NOTE)

    def write(self, path, content):
        path = self.mirror / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def ask(self, *arguments):
        """The exit code and the lines printed."""
        out = io.StringIO()
        out.reconfigure = lambda **_: None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = oracle.main([str(argument) for argument in arguments])
        return code, out.getvalue()

    def assert_equal(self, words="equal: 2 documents, 1 attachments"):
        self.assertEqual(self.verdict(), (0, words + "\n"))

    def assert_fault(self, words):
        code, text = self.verdict()
        self.assertEqual(code, 1, text)
        self.assertIn(words, text)


class AnyComparison:
    """Faults that every comparison must find; `verdict()` runs one."""

    def test_a_mirror_that_is_equal_is_called_equal(self):
        self.assert_equal()

    def test_a_document_is_missing(self):
        shutil.rmtree(self.mirror / "books/isbn%3A1")
        self.assert_fault("'isbn:1': missing")

    def test_the_whole_mirror_is_missing(self):
        shutil.rmtree(self.mirror)
        self.assert_fault("'isbn:1': missing")

    def test_a_document_too_many(self):
        self.write("books/extra/document.json", '{"_id":"extra","_rev":"1-a"}\n')
        self.assert_fault("'extra': extra document")

    def test_a_document_under_the_name_of_another(self):
        os.rename(self.mirror / "books/isbn%3A1", self.mirror / "books/isbn%3A2")
        self.assert_fault("holds the document 'isbn:1': the name says 'isbn:2'")

    def test_a_name_that_should_have_been_encoded(self):
        os.rename(self.mirror / "books/isbn%3A1", self.mirror / "books/isbn:1")
        self.assert_fault("a character that must be encoded")

    def test_another_value(self):
        self.write("books/isbn%3A1/document.json", PLAIN.replace("1.0", "1") + "\n")
        self.assert_fault("'isbn:1': the body differs")

    def test_an_older_revision(self):
        self.write("books/isbn%3A1/document.json", PLAIN.replace("1-a", "0-a") + "\n")
        self.assert_fault("'isbn:1'")

    def test_no_newline_at_the_end(self):
        self.write("books/isbn%3A1/document.json", PLAIN)
        self.assert_fault("newline")

    def test_half_a_document(self):
        self.write("books/isbn%3A1/document.json", PLAIN[:20])
        self.assert_fault("is not JSON")

    def test_an_empty_document(self):
        self.write("books/isbn%3A1/document.json", "")
        self.assert_fault("is not JSON")

    def test_a_folder_without_a_document(self):
        self.write("books/empty/attachments/x", b"x")
        self.assert_fault("'empty': no document.json")

    def test_an_attachment_is_missing(self):
        shutil.rmtree(self.mirror / "books/a%2Fb/attachments")
        self.assert_fault("attachment 'n/1.txt' is missing")

    def test_an_attachment_with_other_bytes(self):
        self.write("books/a%2Fb/attachments/n%2F1.txt", NOTE.upper())
        self.assert_fault("attachment 'n/1.txt' has 7 other bytes")

    def test_an_attachment_too_many(self):
        self.write("books/a%2Fb/attachments/other", b"x")
        self.assert_fault("extra attachment 'other'")

    def test_an_empty_folder_of_attachments(self):
        (self.mirror / "books/isbn%3A1/attachments").mkdir()
        self.assert_fault("a folder of attachments without one")

    def test_a_temporary_file_beside_a_document(self):
        self.write("books/isbn%3A1/.document.json.tmp", b"x")
        self.assert_fault("extra '.document.json.tmp'")

    def test_a_temporary_file_among_attachments(self):
        self.write("books/a%2Fb/attachments/tmp/x", b"x")
        self.assert_fault("extra 'tmp' among the attachments")

    def test_a_file_among_documents(self):
        self.write("books/tmp123", b"x")
        self.assert_fault("extra file 'tmp123'")

    def test_a_link_instead_of_a_document(self):
        shutil.move(self.mirror / "books/isbn%3A1", self.directory / "elsewhere")
        os.symlink(self.directory / "elsewhere", self.mirror / "books/isbn%3A1")
        self.assert_fault("extra file 'isbn%3A1'")

    def test_a_link_instead_of_a_body(self):
        shutil.move(self.mirror / "books/isbn%3A1/document.json", self.directory / "elsewhere")
        os.symlink(self.directory / "elsewhere", self.mirror / "books/isbn%3A1/document.json")
        self.assert_fault("extra 'document.json'")

    def test_a_stub_with_another_digest(self):
        stub = {"n/1.txt": {**STUB, "digest": oracle.md5(b"")}}
        self.write("books/a%2Fb/document.json", NOTED % json.dumps(stub) + "\n")
        self.assert_fault("the stub of 'n/1.txt'")

    def test_a_stub_with_another_length(self):
        self.write("books/a%2Fb/document.json", NOTED % json.dumps({"n/1.txt": {**STUB, "length": 1}}) + "\n")
        self.assert_fault("the stub of 'n/1.txt'")

    def test_a_stub_too_many(self):
        stubs = {"n/1.txt": STUB, "more": STUB}
        self.write("books/a%2Fb/document.json", NOTED % json.dumps(stubs) + "\n")
        self.assert_fault("document.json names")


class FeedCase(AnyComparison, Case):
    def setUp(self):
        super().setUp()
        inline = {"n/1.txt": {"content_type": "text/plain", "revpos": 1, "data": base64.b64encode(NOTE).decode()}}
        self.feed = self.directory / "books.ndjson"
        self.rows(
            '{"collection":"books","seq":1,"id":"gone","changes":[{"rev":"1-x"}],"doc":{"_id":"gone","_rev":"1-x"}}',
            '{"seq":2,"id":"isbn:1","changes":[{"rev":"0-a"}],"doc":{"_id":"isbn:1","_rev":"0-a"}}',
            '{"seq":3, "doc" : %s , "id":"isbn:1","changes":[{"rev":"1-a"}]}' % PLAIN,
            '{"seq":4,"id":"a/b","changes":[{"rev":"2-b"}],"doc":%s}' % (NOTED % json.dumps(inline)),
            '{"seq":5,"id":"gone","changes":[{"rev":"2-x"}],"deleted":true}',
            '{"last_seq":5,"pending":0}',
        )

    def rows(self, *rows):
        self.feed.write_bytes("\n".join(rows).encode() + b"\n")

    def verdict(self):
        return self.ask("feed", self.feed, self.mirror)

    def test_a_deleted_document_is_still_there(self):
        self.write("books/gone/document.json", '{"_id":"gone","_rev":"1-x"}\n')
        self.assert_fault("'gone': deleted at the source, yet here")

    def test_another_space_is_a_difference(self):
        self.write("books/isbn%3A1/document.json", PLAIN.replace(", ", ",") + "\n")
        self.assert_fault("'isbn:1': the body differs")

    def test_another_order_outside_of_the_attachments(self):
        text = (NOTED % json.dumps({"n/1.txt": STUB})).replace('"z":[1]', '"z":[1 ]')
        self.write("books/a%2Fb/document.json", text + "\n")
        self.assert_fault("the body differs outside of its attachments")

    def test_inline_data_left_in_the_body(self):
        stub = {**STUB, "data": base64.b64encode(NOTE).decode()}
        self.write("books/a%2Fb/document.json", NOTED % json.dumps({"n/1.txt": stub}) + "\n")
        self.assert_fault("is wrong in data")

    def test_a_stub_that_does_not_say_so(self):
        stub = {key: value for key, value in STUB.items() if key != "stub"}
        self.write("books/a%2Fb/document.json", NOTED % json.dumps({"n/1.txt": stub}) + "\n")
        self.assert_fault("is wrong in stub")

    def test_a_collection_too_many(self):
        (self.mirror / "films").mkdir()
        self.assert_fault("extra collection 'films'")

    def test_a_file_in_the_mirror(self):
        self.write("notes.txt", b"x")
        self.assert_fault("extra file 'notes.txt' in the mirror")

    def test_an_attachment_by_file_is_compared_with_that_file(self):
        (self.directory / "n.txt").write_bytes(NOTE)
        beside = {"n/1.txt": {"content_type": "text/plain", "file": "n.txt"}}
        row = '{"seq":1,"id":"a/b","doc":%s}' % (NOTED % json.dumps(beside))
        self.rows('{"seq":3,"id":"isbn:1","doc":%s}' % PLAIN, row)
        self.assert_equal()
        (self.directory / "n.txt").write_bytes(NOTE.upper())
        self.assert_fault("other bytes")


class ServerCase(AnyComparison, Case):
    """Against a stand-in that answers two documents."""

    def setUp(self):
        super().setUp()
        body = (NOTED % json.dumps({"n/1.txt": STUB})).replace('"_id":"a/b",', "")
        listing = '{"rows":[{"id":"isbn:1","doc":%s},{"id":"a/b","doc":%s}]}' % (PLAIN, body[:-1] + ',"_id":"a/b"}')
        # A feed may know more than a listing, and what is deleted.
        feed = '{"results":[{"id":"isbn:1","doc":%s},{"id":"gone","deleted":true,"doc":{}}]}' % PLAIN
        answers = {
            "/books/_all_docs": listing.encode(),
            "/books/_changes": feed.encode(),
            "/books/a%2Fb/n/1.txt": NOTE,
            "/books/_security": b'{"admins":{"names":["ana"]},"n":1.0}\n',
        }
        self.write("books/_security.json", '{"admins":{"names":["ana"]},"n":1.0}\n')

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                data = answers.get(self.path.split("?")[0])
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}/books"

    def verdict(self):
        return self.ask("server", self.url, self.mirror / "books")

    def test_another_security_object(self):
        self.write("books/_security.json", '{"admins":{"names":["ana"]},"n":1}\n')
        self.assert_fault("the security object differs")

    def test_no_security_object(self):
        (self.mirror / "books/_security.json").unlink()
        self.assert_fault("the security object is not there")

    def test_a_server_that_does_not_answer_is_not_called_equal(self):
        self.assertEqual(self.ask("server", self.url + "-missing", self.mirror / "books")[0], 2)


class BetweenCase(Case):
    """One row is durable: `isbn:1`. The others change it, and bring `a/b`."""

    def setUp(self):
        super().setUp()
        self.feed = self.directory / "books.ndjson"
        noted = NOTED % json.dumps({"n/1.txt": {**STUB, "data": base64.b64encode(NOTE).decode()}})
        self.newer = PLAIN.replace("1-a", "2-a")
        rows = [("isbn:1", "1-a", PLAIN), ("isbn:1", "2-a", self.newer), ("a/b", "2-b", noted)]
        row = '{"seq":%d,"id":"%s","changes":[{"rev":"%s"}],"doc":%s}\n'
        text = "".join(row % (seq, *one) for seq, one in enumerate(rows, 1))
        self.feed.write_text(text + '{"seq":4,"id":"a/b","changes":[{"rev":"3-c"}],"deleted":true}\n')

    def verdict(self, rows=1):
        return self.ask("between", self.feed, rows, self.mirror)

    def test_old_and_new_are_both_right(self):
        self.assert_equal("old or new: 2 documents in 1 mirrors")
        self.write("books/isbn%3A1/document.json", self.newer + "\n")
        shutil.rmtree(self.mirror / "books/a%2Fb")
        self.assert_equal("old or new: 1 documents in 1 mirrors")
        self.assertEqual(self.verdict(4)[0], 0)

    def test_old_is_wrong_where_the_new_is_durable(self):
        code, text = self.verdict(2)
        self.assertEqual(code, 1)
        self.assertIn("'isbn:1': the body differs", text)

    def test_a_lost_document(self):
        shutil.rmtree(self.mirror / "books/isbn%3A1")
        self.assert_fault("'isbn:1': lost")

    def test_an_empty_body(self):
        self.write("books/isbn%3A1/document.json", "")
        self.assert_fault("not JSON")

    def test_a_missing_attachment(self):
        shutil.rmtree(self.mirror / "books/a%2Fb/attachments")
        self.assert_fault("'n/1.txt' is missing")

    def test_a_torn_attachment(self):
        self.write("books/a%2Fb/attachments/n%2F1.txt", NOTE[:3])
        self.assert_fault("3 other bytes")

    def test_a_document_that_never_was(self):
        self.write("books/x/document.json", '{"_id":"x"}\n')
        self.assert_fault("'x': extra document")


class CleanCase(Case):
    def verdict(self):
        return self.ask("clean", self.mirror)

    def test_a_clean_mirror(self):
        (self.mirror / ".plainfold/staging/1").mkdir(parents=True)
        (self.mirror / ".plainfold/lock").touch()
        self.assert_equal("clean: 2 documents")

    def test_a_file_left_in_staging(self):
        self.write(".plainfold/staging/1/7~books/document.json", b"x")
        self.assert_fault(".plainfold/staging holds '1'/'7~books'")

    def test_a_folder_that_is_not_of_staging(self):
        (self.mirror / ".plainfold/staging/7").mkdir(parents=True)
        self.assert_fault(".plainfold/staging holds '7'")

    def test_a_file_left_beside_a_document(self):
        self.write("books/isbn%3A1/document.json.tmp", b"x")
        self.assert_fault("extra 'document.json.tmp'")


class ReaderCase(Case):
    """The reader makes one pass at least, also when it is told to stop before it begins."""

    def verdict(self):
        stop = self.directory / "stop"
        stop.touch()
        return self.ask("reader", self.mirror, stop)

    def test_a_whole_mirror(self):
        self.assert_equal("checked: 2 documents in 1 passes")

    def test_a_folder_whose_document_does_not_exist_yet(self):
        self.write("books/new/attachments/x", b"x")
        self.assert_equal("checked: 2 documents in 1 passes")

    def test_half_a_document(self):
        self.write("books/isbn%3A1/document.json", PLAIN[:-3])
        self.assert_fault("newline")
        self.write("books/isbn%3A1/document.json", PLAIN[:-3] + "\n")
        self.assert_fault("is not JSON")

    def test_a_document_in_the_folder_of_another(self):
        os.rename(self.mirror / "books/isbn%3A1", self.mirror / "books/isbn%3A2")
        self.assert_fault("the name says 'isbn:2'")

    def test_an_attachment_that_is_not_there_yet(self):
        shutil.rmtree(self.mirror / "books/a%2Fb/attachments")
        self.assert_fault("attachment 'n/1.txt' is missing")

    def test_half_an_attachment(self):
        self.write("books/a%2Fb/attachments/n%2F1.txt", NOTE[:3])
        self.assert_fault("has 3 bytes, not 7")

    def test_an_attachment_of_another_revision(self):
        self.write("books/a%2Fb/attachments/n%2F1.txt", NOTE.upper())
        self.assert_fault("other bytes than its digest says")

    def test_a_document_replaced_while_it_was_read_is_no_fault(self):
        folder = self.mirror / "books/a%2Fb"
        real = oracle.Look.attachments

        def replaced(look):
            self.write("books/a%2Fb/document.json", '{"_id":"a/b","_rev":"3-c"}\n')
            shutil.rmtree(folder / "attachments", ignore_errors=True)
            return real(look)

        oracle.Look.attachments = replaced
        self.addCleanup(setattr, oracle.Look, "attachments", real)
        self.assert_equal("checked: 2 documents in 1 passes")

    def test_a_document_deleted_while_it_was_read_is_no_fault(self):
        real = oracle.Look.attachments

        def deleted(look):
            shutil.rmtree(self.mirror / "books/a%2Fb", ignore_errors=True)
            return real(look)

        oracle.Look.attachments = deleted
        self.addCleanup(setattr, oracle.Look, "attachments", real)
        self.assert_equal("checked: 1 documents in 1 passes")


class NameCase(unittest.TestCase):
    def test_names_are_read_back(self):
        for name, text in [
            (b"a%2Fb", "a/b"),
            (b"%2E%2E", ".."),
            (b"%43ON", "CON"),
            ("書 📚".encode(), "書 📚"),
            (b"100%25", "100%"),
            (b"~", ""),
        ]:
            self.assertEqual(oracle.decode_name(name), (text, True))
            self.assertIsNone(oracle.fits(name, text))

    def test_a_shortened_name_fits_every_long_id_that_begins_so(self):
        name = b"a" * 167 + b"~" + b"0" * 32
        self.assertIsNone(oracle.fits(name, "a" * 300))
        self.assertIsNotNone(oracle.fits(name, "b" * 300))
        self.assertIsNotNone(oracle.fits(b"a~" + b"0" * 32, "ab"))

    def test_names_that_the_format_does_not_allow(self):
        for name in [b".", b"..", b".x", b"x.", b"x ", b"CON", b"nul.txt", b"a:b", b"%2f", b"%zz", b"a~b", b"\xff", b"a" * 201, b"a\nb"]:
            with self.assertRaises(oracle.BadName, msg=name):
                oracle.decode_name(name)


class AttachmentCase(unittest.TestCase):
    def test_attachments_whose_shortened_names_begin_alike_are_told_apart_by_their_bytes(self):
        wanted = {"a" * 300: b"one", "a" * 301: b"other"}
        files = {b"a" * 167 + b"~" + digit * 32: data for digit, data in [(b"0", b"other"), (b"1", b"one")]}
        faults = []
        self.assertEqual(oracle.compare_attachments("id", wanted, files, faults), 2)
        self.assertEqual(faults, [])
        oracle.compare_attachments("id", {**wanted, "a" * 300: b"third"}, files, faults)
        self.assertTrue(faults, "yet a third one is found")

    def test_an_attachment_that_no_url_spells_is_that_of_the_revision_asked_for(self):
        server = fake.Fake()
        self.addCleanup(server.close)
        entry = '{"_id":"d","_rev":"%s","_attachments":{"a//b":{"data":"%s"}}}'
        leaves = {rev: oracle.parse(entry % (rev, data)) for rev, data in [("1-a", "bG9zZXM="), ("2-b", "d2lucw==")]}
        server.databases["books"] = {"d": leaves}
        books = oracle.Server(server.url("books"))
        self.addCleanup(lambda: books.connection.close())
        self.assertEqual(books.attachment("d", "2-b", "a//b"), b"wins")
        self.assertEqual(books.attachment("d", "1-a", "a//b"), b"loses")
        with self.assertRaises(RuntimeError):
            books.attachment("d", "1-a", "c//d")


class NumberCase(unittest.TestCase):
    def test_the_text_of_a_number_counts(self):
        for left, right in [("1.0", "1"), ("1e400", "1e401"), ("9007199254740993", "9007199254740992"), ("1", '"1"')]:
            self.assertFalse(oracle.same(oracle.parse(left), oracle.parse(right)), (left, right))

    def test_double_keys_and_order_count(self):
        for left, right in [('{"a":1,"a":2}', '{"a":2}'), ('{"a":1,"b":2}', '{"b":2,"a":1}')]:
            self.assertFalse(oracle.same(oracle.parse(left), oracle.parse(right)), (left, right))


if __name__ == "__main__":
    unittest.main()
