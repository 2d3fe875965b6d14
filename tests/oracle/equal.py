"""Two databases compared: what `oracle.py equal` does.

A database's state is its winners as their text stands in the feed, and, when leaves are asked for, every
branch with its history and the tombstones. It stands on the oracle's exact JSON and its `Server`, and
knows nothing of mirrors.
"""

import base64
import json

import oracle

ASKED_AT_ONCE = 50
# A place of their own, a text of its own, or made by the server.
APART = ("_id", "_rev", "_attachments", "_revisions", "_deleted")


class Winner:
    """The winning revision of a document: its text as the server sent it."""

    def __init__(self, revision, deleted, text):
        self.revision, self.deleted, self.text = revision, deleted, text

    def stubs(self):
        return oracle.parse(self.text).last("_attachments", oracle.Obj())


class Leaf:
    """A branch's end: a body, the attachments as `{name: (stub, bytes)}`, and its history, newest first."""

    def __init__(self, body):
        self.body = body
        self.revision = body.last("_rev")
        self.deleted = body.last("_deleted") is True
        self.attachments = {
            name: (stub, base64.b64decode(stub.last("data"))) for name, stub in body.last("_attachments", oracle.Obj())
        }
        revisions = body.last("_revisions")
        start = int(revisions.last("start"))
        self.history = [f"{start - at}-{one}" for at, one in enumerate(revisions.last("ids"))]


class Database:
    """One database as it is now."""

    def __init__(self, url):
        self.server = oracle.Server(url)
        root = oracle.Server(url)
        root.base = root.base.rpartition("/")[0]
        welcome = oracle.parse(root.ask("GET", "/").decode())
        root.connection.close()
        self.software = (welcome.last("couchdb") or "pouchdb", welcome.last("version"))
        self.is_couchdb = self.software[0] != "pouchdb"
        self.winners, self.revisions = {}, {}
        self._read_feed()

    def _read_feed(self):
        text = self.server.ask("GET", "/_changes?include_docs=true&style=all_docs&att_encoding_info=true").decode()
        start = next(start for key, start, _ in oracle.members(text) if key == "results")
        for at in oracle.elements(text, start):
            row = {key: text[begin:end] for key, begin, end in oracle.members(text, at)}
            true_id = oracle.parse(row["id"])
            doc = row.get("doc", "null")
            body = oracle.parse(doc)
            if not isinstance(body, oracle.Obj):
                raise RuntimeError(f"the feed has no body of {true_id!r}")
            deleted = row.get("deleted") == "true"
            self.winners[true_id] = Winner(body.last("_rev"), deleted, doc)
            self.revisions[true_id] = [change.last("rev") for change in oracle.parse(row["changes"])]

    def leaves(self):
        """`{id: {revision: leaf}}`, the tombstones too."""
        return self.read((true_id, revision) for true_id in self.revisions for revision in self.revisions[true_id])

    def attached(self):
        """The same for live winners with attachments only, without other branches."""
        live = _live(self).items()
        return self.read((true_id, winner.revision) for true_id, winner in live if winner.stubs())

    def read(self, asked):
        found, asked = {}, list(asked)
        for at in range(0, len(asked), ASKED_AT_ONCE):
            # By revision: without one pouchdb-server answers the winner only, or nothing if it is deleted.
            docs = [{"id": true_id, "rev": revision} for true_id, revision in asked[at : at + ASKED_AT_ONCE]]
            answer = self.server.ask("POST", "/_bulk_get?revs=true&attachments=true", json.dumps({"docs": docs}))
            for result in oracle.parse(answer.decode()).last("results"):
                for one in result.last("docs"):
                    if one.last("ok") is None:
                        raise RuntimeError(f"{result.last('id')!r} cannot be read in bulk: {one}")
                    leaf = Leaf(one.last("ok"))
                    found.setdefault(result.last("id"), {})[leaf.revision] = leaf
        return found

    def missing(self, leaves):
        """What this database does not know of these branches, by its own account."""
        # pouchdb-server calls those missing whose bodies it never had, so it is asked for the ends alone;
        # what it knows of a history is compared as `_revisions`.
        depth = None if self.is_couchdb else 1
        known = {true_id: sorted({one for leaf in of.values() for one in leaf.history[:depth]}) for true_id, of in leaves.items()}
        answer = json.loads(self.server.ask("POST", "/_revs_diff", json.dumps(known)))
        return {true_id: diff["missing"] for true_id, diff in answer.items() if diff.get("missing")}

    def security(self):
        return json.loads(self.server.ask("GET", "/_security"))


def compare(left_url, right_url, leaves=False, security=False):
    """The differences, and a verdict if both are equal. The left one is expected."""
    left, right = Database(left_url), Database(right_url)
    faults = []
    try:
        counts = _compare_winners(left, right, faults)
        if leaves:
            counts += _compare_leaves(left, right, faults)
        if security and left.security() != right.security():
            faults.append("_security differs")
    finally:
        left.server.connection.close()
        right.server.connection.close()
    return faults, "equal: " + ", ".join(counts)


def _live(database):
    return {true_id: winner for true_id, winner in database.winners.items() if not winner.deleted}


def _in_both(left, right, faults, what):
    """The keys that both have; `what` begins the words on the others."""
    faults.extend(f"{what} {key!r} is only at the left" for key in left if key not in right)
    faults.extend(f"{what} {key!r} is only at the right" for key in right if key not in left)
    return [key for key in left if key in right]


def _compare_winners(left, right, faults):
    ours, theirs = _live(left), _live(right)
    attached, others = left.attached(), right.attached()
    attachments = 0
    for true_id in _in_both(ours, theirs, faults, "the document"):
        one, other = ours[true_id], theirs[true_id]
        if one.revision != other.revision:
            faults.append(f"{true_id!r}: the left one is at {one.revision}, the right one at {other.revision}")
            continue
        if left.software == right.software:
            same_body = _apart(one.text) == _apart(other.text)
        else:
            same_body = _same_bodies(oracle.parse(one.text), oracle.parse(other.text))
        if not same_body:
            faults.append(f"{true_id!r}: the body differs{_shown_difference(one.text, other.text)}")
        held = [of[true_id][one.revision].attachments if true_id in of else {} for of in (attached, others)]
        for name in _in_both(*held, faults, f"{true_id!r}: the attachment"):
            where = f"{true_id!r}: attachment {name!r}"
            _compare_attachment(where, held[0][name], held[1][name], left, right, faults)
            attachments += 1
    return [f"{len(ours)} documents", f"{attachments} attachments"]


def _compare_attachment(where, one, other, left, right, faults):
    # pouchdb-server says of all attachments that came with a revision that they are as new as it is.
    keys = ["content_type"] + ["revpos"] * (left.is_couchdb and right.is_couchdb)
    for key in keys:
        if not oracle.same(one[0].last(key), other[0].last(key)):
            faults.append(f"{where}: {key} is {one[0].last(key)!r}, at the right {other[0].last(key)!r}")
    if one[1] != other[1]:
        digests = f"{oracle.md5(one[1])}, at the right {len(other[1])} with {oracle.md5(other[1])}"
        faults.append(f"{where}: {len(one[1])} bytes with {digests}")


def _compare_leaves(left, right, faults):
    ours, theirs = left.leaves(), right.leaves()
    count = gone = 0
    for true_id in _in_both(ours, theirs, faults, "the document or tombstone"):
        if left.winners[true_id].revision != right.winners[true_id].revision:
            faults.append(f"{true_id!r}: another branch wins")
        for revision in _in_both(ours[true_id], theirs[true_id], faults, f"{true_id!r}: the branch"):
            one, other = ours[true_id][revision], theirs[true_id][revision]
            _compare_leaf(f"{true_id!r}, branch {revision}", one, other, left, right, faults)
            count += 1
            gone += one.deleted
    for here, there, leaves in [("right", right, ours), ("left", left, theirs)]:
        for true_id, revisions in there.missing(leaves).items():
            more = f" and {len(revisions) - 3} more" if len(revisions) > 3 else ""
            faults.append(f"{true_id!r}: the {here} one does not know {', '.join(revisions[:3])}{more}")
    return [f"{count} branches", f"{gone} of them deleted"]


def _compare_leaf(where, one, other, left, right, faults):
    if one.deleted != other.deleted:
        faults.append(f"{where}: deleted only at the {'left' if one.deleted else 'right'}")
    if one.history != other.history:
        faults.append(f"{where}: {len(one.history)} revisions of history, at the right {len(other.history)} or others")
    if not _same_bodies(one.body, other.body, left.software == right.software):
        faults.append(f"{where}: the body differs")
    for name in _in_both(one.attachments, other.attachments, faults, f"{where}: the attachment"):
        of = one.attachments[name], other.attachments[name]
        _compare_attachment(f"{where}: attachment {name!r}", *of, left, right, faults)


def _apart(text):
    """A body's text without the value of `_attachments`, whose entries have no order."""
    head, attachments, tail = oracle.split_body(text)
    return head, attachments is None, tail


def _same_bodies(one, other, ordered=False):
    """Stores of different kinds order members in their own ways."""
    one, other = one.without(*APART), other.without(*APART)
    return oracle.same(one, other) if ordered else oracle.same(_sorted(one), _sorted(other))


def _sorted(value):
    if isinstance(value, oracle.Obj):
        # A stable sort: of double keys the order counts.
        return oracle.Obj(sorted(((key, _sorted(member)) for key, member in value), key=lambda pair: pair[0]))
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _shown_difference(one, other):
    at = oracle.first_difference(one, other)
    return f", at character {at}: {one[max(0, at - 20) : at + 20]!r}, at the right {other[max(0, at - 20) : at + 20]!r}"
