"""A stand-in for a server that keeps every branch exactly, so that tests can change what it holds.

It answers what `generate.py` and `equal.py` ask, for databases in `databases`:
`{name: {id: {revision: leaf}}}`, where a leaf is a body as `oracle.parse` gives it.
"""

import http.server
import json
import threading
import urllib.parse

import oracle


def text(value):
    """The text of what `oracle.parse` gave."""
    if isinstance(value, oracle.Num):
        return str(value)
    if isinstance(value, oracle.Obj):
        return "{" + ",".join(f"{json.dumps(key)}:{text(member)}" for key, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    return json.dumps(value)


def stubbed(leaf):
    """A leaf as a feed shows it."""
    body = leaf.without("_revisions", "_attachments")
    stubs = leaf.last("_attachments")
    if stubs:
        short = oracle.Obj((name, stub.without("data") + [("stub", True)]) for name, stub in stubs)
        body.append(("_attachments", oracle.Obj((name, oracle.Obj(stub)) for name, stub in short)))
    return body


def rank(leaf):
    generation, digest = leaf.last("_rev").split("-", 1)
    return leaf.last("_deleted") is not True, int(generation), digest


class Fake:
    def __init__(self, welcome='{"couchdb":"Welcome","version":"0"}'):
        self.welcome, self.databases, self.securities = welcome, {}, {}
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer goes out at once, and no acknowledgement is waited for

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                found = fake.answer(self.command, urllib.parse.urlsplit(self.path).path.strip("/"), body.decode())
                data = (found or '{"error":"not_found"}').encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_POST = do_DELETE = answer

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def url(self, name):
        return f"http://127.0.0.1:{self.server.server_port}/{name}"

    def answer(self, method, path, body):
        name, _, endpoint = path.partition("/")
        if not name:
            return self.welcome
        if (method, endpoint) == ("PUT", ""):
            self.databases[name] = {}
            return "{}"
        if name not in self.databases:
            return None
        held = self.databases[name]
        if method == "DELETE":
            del self.databases[name]
            return "{}"
        if endpoint == "_security":
            if method == "PUT":
                self.securities[name] = body
            return self.securities.get(name, "{}")
        if endpoint == "_changes":
            return '{"results":[' + ",\n".join(self.row(true_id, leaves) for true_id, leaves in held.items()) + "]}"
        asked = oracle.parse(body)
        if endpoint == "_bulk_docs":
            for leaf in asked.last("docs"):
                held.setdefault(leaf.last("_id"), {})[leaf.last("_rev")] = leaf
            return "[]"
        if endpoint == "_bulk_get":
            found = [(one.last("id"), held[one.last("id")][one.last("rev")]) for one in asked.last("docs")]
            results = (f'{{"id":{json.dumps(true_id)},"docs":[{{"ok":{text(leaf)}}}]}}' for true_id, leaf in found)
            return '{"results":[' + ",".join(results) + "]}"
        if endpoint == "_revs_diff":
            return json.dumps({true_id: {"missing": self.unknown(held.get(true_id, {}), revisions)} for true_id, revisions in asked})
        return None

    @staticmethod
    def unknown(leaves, revisions):
        known = set()
        for leaf in leaves.values():
            history = leaf.last("_revisions")
            known |= {f"{int(history.last('start')) - at}-{digest}" for at, digest in enumerate(history.last("ids"))}
        return [revision for revision in revisions if revision not in known]

    @staticmethod
    def row(true_id, leaves):
        winner, *_ = order = sorted(leaves.values(), key=rank, reverse=True)
        gone = ',"deleted":true' if winner.last("_deleted") is True else ""
        changes = json.dumps([{"rev": leaf.last("_rev")} for leaf in order])
        return f'{{"seq":1,"id":{json.dumps(true_id)},"changes":{changes}{gone},"doc":{text(stubbed(winner))}}}'
