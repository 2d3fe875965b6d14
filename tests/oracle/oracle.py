#!/usr/bin/env python3
"""The oracle: says whether a mirror equals its source, knowing nothing of Plainfold's code.

    oracle.py server URL-OF-DATABASE MIRROR/COLLECTION   compare with a server, as it is now
    oracle.py feed FILE.ndjson MIRROR                    compare with a recorded feed's final state
    oracle.py between FILE.ndjson ROWS MIRROR...         each document as the first ROWS rows left it, or
                                                         as a later row made it, and whole
    oracle.py reader MIRROR STOP-FILE                    read like an outsider until STOP-FILE exists
    oracle.py clean MIRROR                               look for temporary and foreign files
    oracle.py equal URL URL [--leaves] [--security]      compare two databases: winners; with --leaves also
                                                         all branches, histories and tombstones

Differences are printed one per line and the exit code is 1; 0 means that both are equal; 2 means that
the oracle itself failed. It uses Python's standard library only, shares no code with Plainfold, and
reads nothing in `.plainfold/` (except that `clean` checks whether `staging/` is empty). It implements
names and files from the published format.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import re
import stat
import sys
import time
import urllib.parse

OURS = b".plainfold"
LONGEST_NAME = 200
MUST_BE_ENCODED = set(b'/\\:*?"<>|~') | set(range(0x20)) | {0x7F}
DEVICE = re.compile(rb"(con|prn|aux|nul|(com|lpt)\d) *(\.|$)", re.IGNORECASE)


# Not a document: the security object of a database.
SECURITY = b"_security.json"


# Names ------------------------------------------------------------------------------------------


class BadName(Exception):
    """A name that the format does not allow."""


def decode_name(name):
    """A folder's or file's name (bytes) as `(text, whole)`: the exact id, or only how it begins."""
    if name == b"~":
        return "", True
    if len(name) > LONGEST_NAME:
        raise BadName(f"a name of {len(name)} bytes")
    name, mark, digest = name.partition(b"~")
    whole = not mark
    if mark and not re.fullmatch(rb"[0-9a-f]{32}", digest):
        raise BadName(f"a tilde without a hash: {digest!r}")
    if name.startswith(b".") or (whole and name.endswith((b".", b" "))):
        raise BadName("a dot or space that must be encoded")
    if MUST_BE_ENCODED & set(name):
        raise BadName("a character that must be encoded")
    if whole and DEVICE.match(name):
        raise BadName("a device's name")
    if name == SECURITY:
        raise BadName("the name of the security object")
    if re.search(rb"%(?![0-9A-F]{2})", name):
        raise BadName("a percent sign that encodes nothing")
    decoded = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), name)
    try:
        return decoded.decode("utf-8"), whole
    except UnicodeDecodeError as error:
        raise BadName("not UTF-8") from error


def fits(name, true_id):
    """What is wrong with `name` (bytes) as the name of `true_id`, or None."""
    try:
        text, whole = decode_name(name)
    except BadName as error:
        return str(error)
    if whole:
        return None if text == true_id else f"the name says {text!r}"
    if not true_id.startswith(text):
        return f"the name begins with {text!r}"
    # Every byte may become three, so that an id of 67 bytes may need a long name.
    if len(true_id.encode("utf-8", "surrogatepass")) * 3 <= LONGEST_NAME:
        return "a hash stands in a name that is not long"
    return None


def shown(name):
    return repr(os.fsdecode(name)) if isinstance(name, bytes) else repr(name)


# JSON with the text of every number kept ------------------------------------------------------------


class Num(str):
    """A number's own text."""


class Obj(list):
    """An object as a list of pairs, so that order and double keys count."""

    def last(self, key, default=None):
        for name, value in reversed(self):
            if name == key:
                return value
        return default

    def without(self, *keys):
        return Obj(pair for pair in self if pair[0] not in keys)


EXACT = json.JSONDecoder(
    parse_int=Num, parse_float=Num, parse_constant=lambda word: _no_constant(word), object_pairs_hook=Obj
)


def _no_constant(word):
    raise ValueError(f"{word} is not JSON")


def parse(text):
    value, end = EXACT.raw_decode(text, _space(text, 0))
    if _space(text, end) != len(text):
        raise ValueError(f"something follows the value at {end}")
    return value


def _space(text, at):
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def members(text, at=0):
    """The members of the object at `at` as `(key, start of value, end of value)`."""
    at = _space(text, at)
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    found = []
    at = _space(text, at + 1)
    while text[at : at + 1] != "}":
        if found:
            if text[at : at + 1] != ",":
                raise ValueError(f"no comma at {at}")
            at = _space(text, at + 1)
        key, at = EXACT.raw_decode(text, at)
        at = _space(text, at)
        if text[at : at + 1] != ":":
            raise ValueError(f"no colon at {at}")
        start = _space(text, at + 1)
        _, end = EXACT.raw_decode(text, start)
        found.append((key, start, end))
        at = _space(text, end)
    return found


def elements(text, at=0):
    """Where the values of the array at `at` begin."""
    found, at = [], _space(text, at + 1)
    while text[at : at + 1] != "]":
        if found:
            at = _space(text, at + 1)  # behind the comma
        found.append(at)
        _, end = EXACT.raw_decode(text, at)
        at = _space(text, end)
    return found


def same(left, right):
    """Equality that distinguishes 1 from "1"."""
    if type(left) is not type(right) or not isinstance(left, (list, tuple)):
        return type(left) is type(right) and left == right
    return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right))


def md5(data):
    return "md5-" + base64.b64encode(hashlib.md5(data).digest()).decode()


# The tree at rest -----------------------------------------------------------------------------------


class Held:
    """One document as the mirror holds it."""

    def __init__(self, folder, text, attachments):
        self.folder = folder  # the folder's own name, bytes
        self.text = text
        self.attachments = attachments  # the file's own name, bytes -> content


def entries(path):
    with os.scandir(path) as found:
        return sorted(found, key=lambda entry: entry.name)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def held_documents(collection, faults):
    """Every document folder of a collection, keyed by true id. What should not be there is a fault."""
    found = {}
    if not os.path.lexists(collection):
        return found
    if not stat.S_ISDIR(os.lstat(collection).st_mode):
        faults.append(f"{shown(collection)} is not a folder")
        return found
    for folder in entries(collection):
        where = shown(folder.name)
        if folder.name == SECURITY and folder.is_file(follow_symlinks=False):
            continue
        if not folder.is_dir(follow_symlinks=False):
            faults.append(f"extra file {where}")
            continue
        text, attachments = None, {}
        for entry in entries(folder.path):
            if entry.name == b"document.json" and entry.is_file(follow_symlinks=False):
                text = read(entry.path)
            elif entry.name == b"attachments" and entry.is_dir(follow_symlinks=False):
                for attachment in entries(entry.path):
                    if attachment.is_file(follow_symlinks=False):
                        attachments[attachment.name] = read(attachment.path)
                    else:
                        faults.append(f"{where}: extra {shown(attachment.name)} among the attachments")
                if not attachments:
                    faults.append(f"{where}: a folder of attachments without one")
            else:
                faults.append(f"{where}: extra {shown(entry.name)}")
        if text is None:
            faults.append(f"{where}: no document.json")
            continue
        try:
            body = parse(text.decode("utf-8"))
            true_id = body.last("_id") if isinstance(body, Obj) else None
        except ValueError as error:
            faults.append(f"{where}: document.json is not JSON: {error}")
            continue
        if not isinstance(true_id, str) or isinstance(true_id, Num):
            faults.append(f"{where}: document.json has no _id")
            continue
        wrong = fits(folder.name, true_id)
        if wrong:
            faults.append(f"{where}: holds the document {true_id!r}: {wrong}")
        if true_id in found:
            faults.append(f"{where}: the document {true_id!r} stands here and in {shown(found[true_id].folder)}")
        found[true_id] = Held(folder.name, text, attachments)
    return found


def compare_attachments(true_id, wanted, files, faults):
    """Compares `wanted` (name -> bytes) with a folder's files; returns the number of equal ones."""
    left = dict(files)
    equal = 0
    for name, data in wanted.items():
        match = [file for file in left if fits(file, name) is None]
        if not match:
            faults.append(f"{true_id!r}: attachment {name!r} is missing")
            continue
        # Two shortened names may begin with the same text; only Plainfold's hash shows whose they
        # are.
        match.sort(key=lambda file: left[file] != data)
        content = left.pop(match[0])
        if content != data:
            faults.append(f"{true_id!r}: attachment {name!r} has {len(content)} other bytes, not the {len(data)} of the source")
        else:
            equal += 1
    faults.extend(f"{true_id!r}: extra attachment {shown(file)}" for file in left)
    return equal


def compare_ids(wanted, gone, held, faults):
    for true_id in wanted:
        if true_id not in held:
            faults.append(f"{true_id!r}: missing")
    for true_id in held:
        if true_id not in wanted:
            faults.append(f"{true_id!r}: " + ("deleted at the source, yet here" if true_id in gone else "extra document"))


# Against a server -----------------------------------------------------------------------------------


class Server:
    """One database of a server speaking CouchDB's protocol."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname, parts.port or 80
        self.base = parts.path.rstrip("/")
        self.headers = {"Accept": "application/json"}
        if parts.username:
            pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self.headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        self.connection = None

    def ask(self, method, path, body=None, accept="application/json"):
        headers = {**self.headers, "Accept": accept}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        self.connection.request(method, self.base + path, body, headers)
        response = self.connection.getresponse()
        data = response.read()
        if response.status >= 300:
            raise RuntimeError(f"{method} {self.base + path}: {response.status} {data[:200]!r}")
        return data

    def documents(self):
        # From two listings: pouchdb-server's `_all_docs` leaves out ids that begin beyond U+00FF.
        feed = parse(self.ask("GET", "/_changes?include_docs=true&att_encoding_info=true").decode())
        live = {row.last("id"): row.last("doc") for row in feed.last("results") if row.last("deleted") is not True}
        rows = parse(self.ask("GET", "/_all_docs?include_docs=true&att_encoding_info=true").decode())
        return {**live, **{row.last("id"): row.last("doc") for row in rows.last("rows")}}

    def attachment(self, true_id, revision, name):
        if {"", ".", ".."} & {true_id, *name.split("/")}:
            return self._attachment_in_bulk(true_id, revision, name)  # no URL can spell these safely
        path = "/".join(urllib.parse.quote(segment, safe="") for segment in name.split("/"))
        try:
            return self.ask("GET", f"/{self._document_path(true_id)}/{path}", accept="*/*")
        except RuntimeError:
            # pouchdb-server cannot say a content type in a header that is not Latin-1.
            return self._attachment_in_bulk(true_id, revision, name)

    def _document_path(self, true_id):
        if true_id.startswith("_design/"):
            return "_design/" + urllib.parse.quote(true_id[len("_design/") :], safe="")
        return urllib.parse.quote(true_id, safe="")

    def _attachment_in_bulk(self, true_id, revision, name):
        asked = json.dumps({"docs": [{"id": true_id, "rev": revision}]})
        answer = parse(self.ask("POST", "/_bulk_get?attachments=true", asked).decode())
        body = answer.last("results")[0].last("docs")[0].last("ok")
        stub = body and body.last("_attachments", Obj()).last(name)
        if not stub:
            raise RuntimeError(f"the attachment {name!r} of {true_id!r} cannot be read in bulk")
        return base64.b64decode(stub.last("data"))


def compare_security(server, collection, faults):
    theirs = parse(server.ask("GET", "/_security").decode())
    path = os.path.join(collection, SECURITY)
    ours = read(path) if os.path.isfile(path) else b""
    if not ours.endswith(b"\n"):
        faults.append("the security object is not there, or not whole")
    elif not same(parse(ours.decode()), theirs):
        faults.append("the security object differs")


STUB_KEYS = ("content_type", "revpos", "digest", "length", "stub")


def compare_with_server(url, collection):
    faults, attachments = [], 0
    server = Server(url)
    held = held_documents(os.fsencode(collection), faults)
    compare_security(server, os.fsencode(collection), faults)
    documents = server.documents()
    compare_ids(documents, set(), held, faults)
    for true_id, body in documents.items():
        if true_id not in held:
            continue
        ours = parse(held[true_id].text.decode())
        if not held[true_id].text.endswith(b"\n"):
            faults.append(f"{true_id!r}: document.json does not end in a newline")
        if ours.last("_rev") != body.last("_rev"):
            faults.append(f"{true_id!r}: _rev is {ours.last('_rev')}, at the source {body.last('_rev')}")
            continue
        # Servers place _id and _rev differently in a feed and in a listing.
        apart = ("_id", "_rev", "_attachments")
        if not same(ours.without(*apart), body.without(*apart)):
            faults.append(f"{true_id!r}: the body differs")
        stubs, our_stubs = body.last("_attachments", Obj()), ours.last("_attachments", Obj())
        if sorted(name for name, _ in stubs) != sorted(name for name, _ in our_stubs):
            faults.append(f"{true_id!r}: document.json names other attachments than the source")
        for name, stub in stubs:
            our_stub = our_stubs.last(name)
            if our_stub is not None and not all(same(stub.last(key), our_stub.last(key)) for key in STUB_KEYS):
                faults.append(f"{true_id!r}: the stub of {name!r} differs")
        wanted = {name: server.attachment(true_id, body.last("_rev"), name) for name, _ in stubs}
        attachments += compare_attachments(true_id, wanted, held[true_id].attachments, faults)
    server.connection.close()
    return faults, f"equal: {len(documents)} documents, {attachments} attachments"


# Against a recorded feed ----------------------------------------------------------------------------


def final_state(feed):
    """`{collection: ({id: raw body text}, {deleted ids})}` after a feed's last row."""
    return state_after(feed, read(feed).split(b"\n"))


def state_after(feed, lines):
    """The same after these of its rows."""
    stem = os.path.splitext(os.path.basename(feed))[0]
    state = {}
    for line in lines:
        try:
            text = line.decode("utf-8")
            spans = {key: (start, end) for key, start, end in members(text)}
            row = {key: parse(text[start:end]) for key, (start, end) in spans.items() if key != "doc"}
        except (ValueError, RecursionError):
            continue  # A row that nobody can read says nothing of any document.
        if not isinstance(row.get("id"), str):
            continue
        live, gone = state.setdefault(row.get("collection", stem), ({}, set()))
        live.pop(row["id"], None)
        gone.discard(row["id"])
        if row.get("deleted") is True:
            gone.add(row["id"])
        else:
            start, end = spans["doc"]
            live[row["id"]] = text[start:end]
    return state


def versions(feed, rows):
    """`{collection: {id: [raw body text or None]}}`: what a document may be once the first `rows` rows are
    durable. None is no document."""
    lines = read(feed).split(b"\n")
    durable = state_after(feed, lines[:rows])
    allowed = {name: {true_id: [raw] for true_id, raw in live.items()} for name, (live, _) in durable.items()}
    for line in lines[rows:]:
        for name, (live, gone) in state_after(feed, [line]).items():
            of_collection = allowed.setdefault(name, {})
            for true_id, raw in [*live.items(), *((true_id, None) for true_id in gone)]:
                of_collection.setdefault(true_id, [None]).append(raw)
    return allowed


def fits_one(true_id, bodies, held, directory):
    """The faults of the version that a document is most like; none if it is one of them."""
    found = []
    for raw in bodies:
        faults = []
        wanted = compare_body(true_id, raw, held.text.decode("utf-8"), directory, faults)
        compare_attachments(true_id, wanted, held.attachments, faults)
        found.append(faults)
    return min(found, key=len, default=[f"{true_id!r}: extra document"])


def compare_with_versions(feed, rows, *mirrors):
    faults, documents = [], 0
    allowed = versions(feed, int(rows))
    directory = os.path.dirname(os.path.abspath(feed))
    for mirror in mirrors:
        found = []
        folders = collections_of(os.fsencode(mirror), found)
        found.extend(f"extra collection {name!r}" for name in folders if name not in allowed)
        for name, of_collection in allowed.items():
            held = held_documents(folders[name], found) if name in folders else {}
            documents += len(held)
            for true_id, bodies in of_collection.items():
                if true_id not in held and None not in bodies:
                    found.append(f"{true_id!r}: lost")
            for true_id, document in held.items():
                bodies = [raw for raw in of_collection.get(true_id, []) if raw is not None]
                found.extend(fits_one(true_id, bodies, document, directory))
        faults.extend(f"{mirror}: {fault}" for fault in found)
    return faults, f"old or new: {documents} documents in {len(mirrors)} mirrors"


def split_body(text):
    """A body's text as (all before the value of `_attachments`, that value or None, all after)."""
    spans = [(start, end) for key, start, end in members(text) if key == "_attachments"]
    if not spans:
        return text, None, ""
    start, end = spans[-1]
    return text[:start], text[start:end], text[end:]


def attachment_bytes(entry, directory):
    if entry.last("data") is not None:
        return base64.b64decode(entry.last("data"))
    if entry.last("file") is not None:
        return read(os.path.join(directory, entry.last("file")))
    return None


def compare_stub(true_id, name, entry, data, raw, ours, faults):
    """Compares one attachment's stub, as it stands in document.json, with the row's own entry."""
    if data is None:
        if raw != ours:
            faults.append(f"{true_id!r}: the stub of {name!r} differs")
        return
    stub = parse(ours)
    wrong = []
    if entry.last("content_type") is not None and stub.last("content_type") != entry.last("content_type"):
        wrong.append("content_type")
    if not same(stub.last("length"), Num(len(data))):
        wrong.append("length")
    if stub.last("digest") != md5(data):
        wrong.append("digest")
    if stub.last("stub") is not True:
        wrong.append("stub")
    if entry.last("revpos") is not None and not same(stub.last("revpos"), entry.last("revpos")):
        wrong.append("revpos")
    known = {key for key, _ in entry} | {*STUB_KEYS}
    wrong += [key for key, _ in stub if key in ("data", "file") or key not in known]
    if len({key for key, _ in stub}) != len(stub):
        wrong.append("a key twice")
    if wrong:
        faults.append(f"{true_id!r}: the stub of {name!r} is wrong in {', '.join(wrong)}: {ours}")


def compare_body(true_id, raw, text, directory, faults):
    """Compares a row's body with document.json; returns the attachments that it must have."""
    if not text.endswith("\n"):
        faults.append(f"{true_id!r}: document.json does not end in a newline")
        return {}
    head, attachments, tail = split_body(raw)
    our_head, our_attachments, our_tail = split_body(text[:-1])
    if attachments is None:
        if raw != text[:-1]:
            faults.append(f"{true_id!r}: the body differs, at character {first_difference(raw, text)}")
        return {}
    if our_attachments is None:
        faults.append(f"{true_id!r}: document.json names no attachments")
        return {}
    if head != our_head or tail != our_tail:
        faults.append(f"{true_id!r}: the body differs outside of its attachments")
    theirs = {key: attachments[start:end] for key, start, end in members(attachments)}
    ours = {key: our_attachments[start:end] for key, start, end in members(our_attachments)}
    if list(theirs) != list(ours):
        faults.append(f"{true_id!r}: document.json names the attachments {list(ours)}, the source {list(theirs)}")
    wanted = {}
    for name, entry_text in theirs.items():
        entry = parse(entry_text)
        data = attachment_bytes(entry, directory)
        if data is not None:
            wanted[name] = data
        if name in ours:
            compare_stub(true_id, name, entry, data, entry_text, ours[name], faults)
    return wanted


def first_difference(left, right):
    return next((at for at, (a, b) in enumerate(zip(left, right)) if a != b), min(len(left), len(right)))


def collections_of(mirror, faults):
    """The mirror's collections: name -> path."""
    found = {}
    for entry in entries(mirror) if os.path.isdir(mirror) else []:
        if entry.name == OURS:
            continue
        try:
            name, whole = decode_name(entry.name)
        except BadName as error:
            faults.append(f"{shown(entry.name)} is no collection's name: {error}")
            continue
        if not entry.is_dir(follow_symlinks=False):
            faults.append(f"extra file {shown(entry.name)} in the mirror")
        elif not whole:
            faults.append(f"{shown(entry.name)}: the name of a long collection cannot be read back here")
        else:
            found[name] = entry.path
    return found


def compare_with_feed(feed, mirror):
    faults, documents, attachments = [], 0, 0
    state = final_state(feed)
    folders = collections_of(os.fsencode(mirror), faults)
    faults.extend(f"extra collection {name!r}" for name in folders if name not in state)
    for name, (live, gone) in state.items():
        found = []
        held = held_documents(folders[name], found) if name in folders else {}
        compare_ids(live, gone, held, found)
        documents += len(live)
        for true_id, raw in live.items():
            if true_id in held:
                text = held[true_id].text.decode("utf-8")
                wanted = compare_body(true_id, raw, text, os.path.dirname(os.path.abspath(feed)), found)
                attachments += compare_attachments(true_id, wanted, held[true_id].attachments, found)
        faults.extend(f"{name}: {fault}" for fault in found)
    return faults, f"equal: {documents} documents, {attachments} attachments"


# A reader beside the writer -------------------------------------------------------------------------


class Gone(Exception):
    """The document went away while we looked."""


class Look:
    """One look at a document through its folder's own handle, as a careful outsider would take it."""

    def __init__(self, folder):
        self.folder = folder
        self.handle = None

    def __enter__(self):
        try:
            self.handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise Gone from error
        return self

    def __exit__(self, *_):
        os.close(self.handle)

    def document(self):
        try:
            file = os.open(b"document.json", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self.handle)
        except OSError as error:
            raise Gone from error
        with os.fdopen(file, "rb") as open_file:
            return open_file.read()

    def attachments(self):
        try:
            handle = os.open(b"attachments", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.handle)
        except OSError:
            return {}
        found = {}
        try:
            for name in os.listdir(handle):
                try:
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=handle)
                except OSError:
                    continue
                with os.fdopen(file, "rb") as open_file:
                    found[os.fsencode(name)] = open_file.read()
        finally:
            os.close(handle)
        return found


def faults_of_look(name, text, attachments):
    """What a reader finds wrong with a document that it has read."""
    if not text.endswith(b"\n"):
        return [f"document.json does not end in a newline ({len(text)} bytes)"]
    try:
        body = parse(text.decode("utf-8"))
    except ValueError as error:
        return [f"document.json is not JSON: {error}"]
    if not isinstance(body, Obj) or not isinstance(body.last("_id"), str):
        return ["document.json has no _id"]
    wrong = fits(name, body.last("_id"))
    faults = [f"holds the document {body.last('_id')!r}: {wrong}"] if wrong else []
    stubs = body.last("_attachments", Obj())
    if not stubs:
        return faults
    files = attachments()
    for attachment, stub in stubs:
        content = [data for file, data in files.items() if fits(file, attachment) is None]
        if not content:
            faults.append(f"attachment {attachment!r} is missing")
            continue
        encoded = stub.last("encoding") is not None  # then both speak of bytes that nobody keeps
        if not encoded and stub.last("length") is not None and stub.last("length") != str(len(content[0])):
            faults.append(f"attachment {attachment!r} has {len(content[0])} bytes, not {stub.last('length')}")
        elif not encoded and (stub.last("digest") or "").startswith("md5-") and stub.last("digest") != md5(content[0]):
            faults.append(f"attachment {attachment!r} has other bytes than its digest says")
    return faults


def look_at(folder):
    """The faults of one document that stay when it did not change meanwhile; None if it is gone."""
    name = os.path.basename(folder)
    try:
        with Look(folder) as look:
            text = look.document()
            faults = faults_of_look(name, text, look.attachments)
        if faults:
            # Replaced or deleted meanwhile? Then the text that we read does not count.
            with Look(folder) as again:
                if again.document() != text:
                    return []
                # A folder put in its place since with the same body must be whole.
                faults = faults_of_look(name, text, again.attachments)
            if faults:
                with Look(folder) as last:
                    if last.document() != text:
                        return []
        return faults
    except Gone:
        return None


def list_folder(path):
    try:
        return os.listdir(path)
    except OSError:
        return []


def read_beside(mirror, stop):
    faults, documents, passes = [], 0, 0
    root = os.fsencode(mirror)
    while True:
        last = os.path.exists(stop)
        for collection in list_folder(root):
            if collection == OURS:
                continue
            folders = list_folder(os.path.join(root, collection))
            random.shuffle(folders)
            for count, name in enumerate(folders):
                if not last and count % 64 == 63 and os.path.exists(stop):
                    break
                found = look_at(os.path.join(root, collection, name))
                if found is not None:
                    documents += 1
                    faults.extend(f"{shown(collection)}/{shown(name)}: {fault}" for fault in found)
        passes += 1
        time.sleep(0.001)  # leaves the processor to those who write
        if last:
            return faults, f"checked: {documents} documents in {passes} passes"


# Nothing left over ----------------------------------------------------------------------------------


def look_for_leftovers(mirror):
    faults, documents = [], 0
    root = os.fsencode(mirror)
    staging = os.path.join(root, OURS, b"staging")
    if os.path.isdir(staging):
        for entry in entries(staging):
            # Its own folders stay.
            if re.fullmatch(rb"[0-3]", entry.name) and entry.is_dir(follow_symlinks=False):
                inner = (f"{shown(entry.name)}/{shown(inner.name)}" for inner in entries(entry.path))
                faults.extend(f".plainfold/staging holds {name}" for name in inner)
            else:
                faults.append(f".plainfold/staging holds {shown(entry.name)}")
    for path in collections_of(root, faults).values():
        documents += len(held_documents(path, faults))
    return faults, f"clean: {documents} documents"


def compare_databases(left, right, *options):
    import equal  # which stands on what is above

    return equal.compare(left, right, "--leaves" in options, "--security" in options)


COMMANDS = {
    "server": compare_with_server,
    "feed": compare_with_feed,
    "between": compare_with_versions,
    "reader": read_beside,
    "clean": look_for_leftovers,
    "equal": compare_databases,
}
COUNTS = {"clean": (2, 2), "between": (4, sys.maxsize)}
OPTIONS = {"equal": {"--leaves", "--security"}}


def main(arguments):
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.setrecursionlimit(20_000)
    command = COMMANDS.get(arguments[0]) if arguments else None
    options = {argument for argument in arguments if argument.startswith("--")}
    count = len(arguments) - len(options)
    least, most = COUNTS.get(arguments[0], (3, 3)) if arguments else (0, 0)
    if command is None or not least <= count <= most or options - OPTIONS.get(arguments[0], set()):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        faults, verdict = command(*arguments[1:])
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        print(f"the oracle cannot say: {error}", file=sys.stderr)
        return 2
    for fault in faults:
        print(fault)
    if faults:
        return 1
    print(verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
