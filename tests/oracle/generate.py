#!/usr/bin/env python3
"""Invents hostile databases: the same seed gives the same documents, on every machine.

    generate.py server URL-OF-A-NEW-DATABASE SEED    creates and fills a database, with all its branches
    generate.py feed FOLDER SEED                     writes FOLDER/generated.ndjson, and files beside it

Prints the manifest: what the database must hold, as this generator reckons it. Python's standard
library only; it shares no code with Plainfold, and knows nothing of how a mirror spells names.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import oracle

IDS = [
    *(" ", "0", "-", "~", ".", "..", "...", "../x", "../../etc/passwd", ".hidden", "dot.", "space ", " space", "a/b", "a//b"),
    *("/", "/a", "a/", "?", "a?b=c&d", "#", "+", "a+b", "%", "100%", "a%2Fb", "a%252Fb", "%61", "%zz", "*", "a|b", "<b>"),
    *("\\", "C:\\temp", "a:b", "::", "a::b", '"', "'", "a\nb", "\t", "\r\n", "\0", "a\0b", "\x01", "\x1f", "\x7f", "\x85"),
    *("\u2028", "a\u2029b", "\xa0", "\u200b", "\u202e", "\ufeff", "\ufffe", "\uffff", "\ud7ff", "\U0010ffff", "😀", "👩‍👩‍👧"),
    *("café", "cafe\u0301", "CAFÉ", "ﬁ", "fi", "K", "\u212a", "k", "ß", "ẞ", "ss", "İ", "i̇", "羅生門", "ж", "Ж", "Å", "A\u030a", "\u212b"),
    *("Book", "book", "BOOK", "CON", "con", "Nul.tar.gz", "aux ", "com1 .txt", "LPT²", "COM¹", "conin$", "console", "com10"),
    *("document.json", "attachments", "staging", ".plainfold", "true", "null", "undefined", "constructor", "toString", "hasOwnProperty"),
    *("_design/plain", "_design/by title", "_design/a/b", "_design/ж", "_design/..", "_design/100%"),
]
LONG = ["x" * 199, "x" * 200, "x" * 201, "ж" * 99, "ж" * 101, "%" * 67, "😀" * 60, "a/" * 120, "~" * 80, "." * 201, "x" * 1_000]

NAMES = [
    *("a.txt", "a b", " ", ".", "..", "../x", ".hidden", "dot.", "space ", "a/b", "a//b", "/a", "a/", "document.json"),
    *("attachments", "attachments/document.json", "%", "a%2Fb", "100%.txt", "é", "e\u0301", "Ж 📚.pdf", "\u2028", "\0", "a\nb"),
    *('"', "'", "#", "?a=b", "&", "+", ":", "\\", "|", "~", "CON", "nul.txt", "A", "a", "x" * 201, "ж" * 120, "x" * 400, "constructor"),
]

TYPES = [
    *("application/octet-stream", "image/png", "text/plain", "text/plain; charset=utf-8", "TEXT/HTML", "application/json"),
    *("application/xml", "weird", 'a/b;x="y"', "multipart/mixed; boundary=x", "text/ж", "x/" + "y" * 300),
]

NUMBERS = [
    *("0", "-0", "-0.0", "1", "1.0", "-1.50", "0.1", "12.500", "1E5", "1e5", "1e22", "1e-7", "5e-324", "1.7976931348623157e308"),
    *("9007199254740991", "9007199254740993", "-9007199254740993", "18446744073709551616", "123456789012345678901234567890"),
    *("0.1000000000000000055511151231257827", "3.141592653589793238462643383279", "1" + "0" * 99),
]
TOO_LARGE = ["1e400", "-1.0E+400", "1e-400"]

TEXTS = [
    *("", " ", "a", "two\nlines", "\0", "a\0b", "\x1f", "\x7f", '"', "\\", "/", "</script>", "\u2028\u2029", "😀", "e\u0301", "é"),
    *("\ufeff", "\ufffe\uffff", "羅生門", "\u202eabc", "null", "1.0", "%2F", "md5-1B2M2Y8AsgTpgAmY7PhCfg=="),
]
ESCAPED = ['"\\u0041"', '"\\/"', '"\\ud83d\\ude00"', '"\\u0000"', '"\\u2028"', '"\\b\\f\\n\\r\\t"', '"\\u00E9"']
ALONE = ['"\\ud800"', '"a\\udc00b"', '"\\udfff\\ud800"']

KEYS = [
    *("a", "b", "A", "", " ", "é", "e\u0301", "a b", "a.b", "a/b", "\0", "\u2028", "😀", "0", "10", "9", "-1", "constructor", "x" * 300),
    *("id", "rev", "doc", "deleted", "changes", "seq", "collection", "length", "data", "stub", "digest", "file"),
]
NESTED_KEYS = ["_attachments", "_id", "_rev", "_deleted", "_revisions", "__proto__", "_conflicts"]


class Kind:
    """What a store takes. A feed takes all that is JSON, repeated keys and odd spelling with it."""

    def __init__(self, name):
        self.name = name
        self.too_large = name == "feed"  # CouchDB refuses them, JavaScript makes them null
        self.alone = name != "couchdb"  # halves of surrogate pairs
        self.spelling = name == "feed"  # others parse and write again what they get
        self.buries = name != "pouchdb"  # tombstones keep their attachments
        self.types = [one for one in TYPES if name != "pouchdb" or one.isascii()]  # it cannot send them
        self.marks = ["a", "xyz"] + (["x y", "by-hand"] if name != "pouchdb" else [])  # instead of hashes


class Attachment:
    """Its name, content type, bytes, and the generation in which it came."""

    def __init__(self, name, content_type, data, revpos):
        self.name, self.content_type, self.data, self.revpos = name, content_type, data, revpos

    def facts(self):
        return {"content_type": self.content_type, "length": len(self.data), "digest": oracle.md5(self.data)}


class Leaf:
    """A branch's end: its revisions, newest first, and what the newest one holds."""

    def __init__(self, revisions, deleted, members, attachments):
        self.revisions, self.deleted, self.members, self.attachments = revisions, deleted, members, attachments

    @property
    def revision(self):
        return self.revisions[0]

    def rank(self):
        generation, digest = self.revision.split("-", 1)
        return not self.deleted, int(generation), digest

    def facts(self):
        named = {attachment.name: attachment.facts() for attachment in self.attachments}
        return {"revisions": self.revisions, "deleted": self.deleted, "attachments": named}


class Document:
    """A document with all its leaves, and for a feed the earlier states on the winner's way."""

    def __init__(self, true_id, leaves):
        self.id, self.leaves = true_id, leaves

    @property
    def winner(self):
        return max(self.leaves, key=Leaf.rank)

    def facts(self):
        return {"winner": self.winner.revision, "deleted": self.winner.deleted, "leaves": [leaf.facts() for leaf in self.leaves]}


class Database:
    """A database of a store of some kind, invented from a seed."""

    def __init__(self, seed, kind):
        self.seed, self.kind = seed, Kind(kind)
        # Not `hash`, which differs from run to run.
        self.random = random.Random(int.from_bytes(hashlib.sha256(f"{kind} {seed}".encode()).digest()[:8], "big"))
        self.documents = [Document(true_id, self._leaves()) for true_id in self._ids()]
        self.random.shuffle(self.documents)
        self.security = self._security()

    def manifest(self):
        documents = {document.id: document.facts() for document in self.documents}
        return {"seed": self.seed, "kind": self.kind.name, "security": self.security, "documents": documents}

    def _ids(self):
        alike = "".join(self.random.choices("ab/ж%", k=200))  # long ids that differ at their ends only
        ids = self.random.sample(IDS, 60) + self.random.sample(LONG, 4) + [alike, alike + "x", alike + "X", alike + "/"]
        letters = "aB9/%. ~:\"\\\n\0éж\u0301\u2028😀"
        ids += ["".join(self.random.choices(letters, k=self.random.randint(2, 40))) for _ in range(12)]
        return list(dict.fromkeys(ids))

    # Revisions

    def _leaves(self):
        shape = self.random.choice(["edited"] * 6 + ["gone", "gone with a body", "conflict", "lost winner", "all gone", "bush"])
        trunk = self._history([], self.random.choice([1, 1, 2, 3, self.random.randint(1, 30)]))
        branch = lambda least, most: self._history(self._root(trunk), self.random.randint(least, most))
        if shape == "edited":
            if self.random.random() < 0.1:  # revisions need not be hashes
                trunk = [trunk[0].split("-")[0] + "-" + self.random.choice(self.kind.marks), *trunk[1:]]
            return [self._leaf(trunk)]
        if shape == "gone":
            return [Leaf(trunk, True, [], [])]
        if shape == "gone with a body":
            return [self._leaf(trunk, deleted=True)]
        if shape == "conflict":
            return [self._leaf(trunk), self._leaf(branch(1, 3))]
        if shape == "lost winner":  # the longer branch is deleted, and the shorter one wins
            return [self._leaf(self._history(trunk, 4), deleted=self.random.random() < 0.5, bare=True), self._leaf(branch(1, 2))]
        if shape == "all gone":
            return [Leaf(trunk, True, [], []), self._leaf(branch(1, 3), deleted=True)]
        return [self._leaf(trunk)] + [self._leaf(branch(1, 4), deleted=self.random.random() < 0.3) for _ in range(5)]

    def _history(self, after, count):
        """`count` revisions on top of others, newest first."""
        for generation in range(len(after) + 1, len(after) + count + 1):
            after = [f"{generation}-{self.random.getrandbits(128):032x}", *after]
        return after

    def _root(self, trunk):
        """Where a branch leaves the trunk; sometimes beneath it, which is a second root."""
        return trunk[self.random.randint(1, len(trunk)) :]

    def _leaf(self, revisions, deleted=False, bare=False):
        bare = bare or (deleted and not self.kind.buries)
        attachments = [] if bare or self.random.random() < 0.5 else self._attachments(len(revisions))
        return Leaf(revisions, deleted, self._members(), attachments)

    # Attachments

    def _attachments(self, generation):
        count = self.random.choice([1, 1, 2, 3, 3, 12])
        return [
            Attachment(name, self.random.choice(self.kind.types), self._data(), self.random.randint(1, generation))
            for name in self.random.sample(NAMES, count)
        ]

    def _data(self):
        size = self.random.choice(["none", "few", "few", "all", "text", "text", "large"])
        if size == "none":
            return b""
        if size == "few":
            return self.random.randbytes(self.random.randint(1, 5))
        if size == "all":
            return bytes(range(256)) * self.random.randint(1, 8)
        if size == "text":
            return "Straße, 羅生門\r\n".encode() * self.random.randint(1, 3_000)
        return self.random.randbytes(self.random.randint(50_000, 400_000) if self.random.random() < 0.2 else 5_000)

    # Bodies, made as text, so that no library tidies them up

    def _members(self):
        keys = self.random.sample(KEYS, self.random.randint(0, 6))
        members = [(self._key(key), self._value(0)) for key in keys]
        if members and self.kind.spelling and self.random.random() < 0.3:
            members.append((members[0][0], self._value(0)))
        if self.kind.alone and self.random.random() < 0.1:
            members.append((self.random.choice(ALONE), self._value(0)))
        if self.random.random() < 0.1:
            members.append((self._key("deep"), self._deep()))
        return members

    def _key(self, key):
        return json.dumps(key, ensure_ascii=self.random.random() < 0.5)

    def _value(self, depth):
        pick = self.random.randrange(10 if depth < 4 else 6)
        if pick < 2:
            return self.random.choice(NUMBERS + (TOO_LARGE if self.kind.too_large else []))
        if pick < 4:
            return json.dumps(self.random.choice(TEXTS), ensure_ascii=self.random.random() < 0.5)
        if pick == 4:
            return self.random.choice(ESCAPED + (ALONE if self.kind.alone else []))
        if pick == 5:
            return self.random.choice(["true", "false", "null", "[]", "{}", json.dumps("long " * self.random.randint(1, 3_000))])
        space = self.random.choice(["", " ", "\t", " \r "]) if self.kind.spelling else ""
        if pick < 8:
            return "[" + space + ",".join(self._value(depth + 1) for _ in range(self.random.randint(0, 4))) + space + "]"
        keys = self.random.sample(KEYS + NESTED_KEYS, self.random.randint(0, 4))
        if keys and self.random.random() < 0.2:
            keys.append(keys[0])
        pairs = (f"{self._key(key)}{space}:{space}{self._value(depth + 1)}" for key in keys)
        return "{" + space + f"{space},{space}".join(pairs) + "}"

    def _deep(self):
        floors = self.random.randint(100, 600)
        if self.random.random() < 0.5:
            return "[" * floors + "1" + "]" * floors
        return '{"_attachments":' * floors + "null" + "}" * floors

    def _security(self):
        names = self.random.sample(["ana", "Ж ж", "a\u2028b", "x/y", "", "ü"], 2)
        return {"admins": {"names": names[:1], "roles": ["_admin"]}, "members": {"names": names, "roles": ["r 1"]}}


# Written down ---------------------------------------------------------------------------------------


def text_of(document, leaf, entries, history=True):
    """A leaf as the text of a JSON object. `entries` makes an attachment's text."""
    members = [("_id", json.dumps(document.id)), ("_rev", json.dumps(leaf.revision))]
    if history:
        ids = [revision.split("-", 1)[1] for revision in leaf.revisions]
        members.append(("_revisions", json.dumps({"start": len(ids), "ids": ids})))
    if leaf.deleted:
        members.append(("_deleted", "true"))
    texts = [f'"{key}":{value}' for key, value in members] + [f"{key}:{value}" for key, value in leaf.members]
    if leaf.attachments:
        stubs = (f"{json.dumps(attachment.name)}:{entries(attachment)}" for attachment in leaf.attachments)
        texts.append('"_attachments":{' + ",".join(stubs) + "}")
    return "{" + ",".join(texts) + "}"


def inline(attachment):
    data = base64.b64encode(attachment.data).decode()
    return json.dumps({"content_type": attachment.content_type, "revpos": attachment.revpos, "data": data})


def kind_of(url):
    """The kind of the server that answers for a database's URL."""
    server = oracle.Server(url)
    server.base = server.base.rpartition("/")[0]
    try:
        return "couchdb" if b'"couchdb"' in server.ask("GET", "/") else "pouchdb"
    finally:
        server.connection.close()


def fill(url, database):
    """Creates a database on a server and writes every branch of every document into it."""
    server = oracle.Server(url)
    try:
        server.ask("PUT", "")
        batch, size = [], 0
        for document in [*database.documents, None]:
            texts = [text_of(document, leaf, inline) for leaf in document.leaves] if document else []
            if batch and (document is None or size > 1 << 20):
                body = '{"new_edits":false,"docs":[' + ",".join(batch) + "]}"
                refused = json.loads(server.ask("POST", "/_bulk_docs", body.encode()))
                if refused:
                    raise RuntimeError(f"the server refuses what seed {database.seed} makes: {refused}")
                batch, size = [], 0
            database.random.shuffle(texts)
            batch += texts
            size += sum(map(len, texts))
        server.ask("PUT", "/_security", json.dumps(database.security))
    finally:
        server.connection.close()


def record(folder, database, collection="generated"):
    """Writes the database as a recorded feed with earlier states of its documents; returns its path."""
    os.makedirs(os.path.join(folder, "files"), exist_ok=True)
    chance = database.random
    files = iter(range(1_000_000))

    def entry(attachment):
        facts = {"content_type": attachment.content_type, "revpos": attachment.revpos}
        if chance.random() < 0.5:
            facts |= {"length": len(attachment.data), "digest": oracle.md5(attachment.data)}
        if chance.random() < 0.3:
            facts["file"] = f"files/{next(files)}.bin"
            with open(os.path.join(folder, facts["file"]), "wb") as file:
                file.write(attachment.data)
        else:
            facts["data"] = base64.b64encode(attachment.data).decode()
        return json.dumps(facts)

    rows = []
    for document in database.documents:
        winner = document.winner
        states = [winner]
        for depth in sorted(chance.sample(range(1, len(winner.revisions)), min(3, len(winner.revisions) - 1))):
            earlier = Leaf(winner.revisions[depth:], chance.random() < 0.2, database._members(), [])
            states.insert(0, earlier)
        places = sorted(chance.random() for _ in states)
        for place, leaf in zip(places, states):
            row = [f'"id":{json.dumps(document.id)}', f'"changes":[{{"rev":{json.dumps(leaf.revision)}}}]']
            row += ['"deleted":true'] if leaf.deleted else []
            row += [f'"doc":{text_of(document, leaf, entry, history=False)}']
            row += [f'"collection":{json.dumps(collection)}'] if chance.random() < 0.5 else []
            chance.shuffle(row)
            rows.append((place, "{" + ",".join(row) + "}\n"))
    rows.sort(key=lambda row: row[0])
    feed = os.path.join(folder, f"{collection}.ndjson")
    with open(feed, "w", encoding="utf-8", newline="") as file:
        file.writelines(row for _, row in rows)
    return feed


def main(arguments):
    if len(arguments) != 3 or arguments[0] not in ("server", "feed"):
        print(__doc__, file=sys.stderr)
        return 2
    command, where, seed = arguments
    try:
        database = Database(int(seed), kind_of(where) if command == "server" else "feed")
        (fill if command == "server" else record)(where, database)
    except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
        print(f"cannot be generated: {error}", file=sys.stderr)
        return 2
    print(json.dumps(database.manifest()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
