//! What the pages need beyond a scene, in the order of their names.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::scene::Scene;
use super::{Page, Step, operations};

/// Commands that are not run, by their beginnings, and why.
pub(super) const NOT_HERE: &[(&str, &str)] = &[
    ("cargo ", "builds the program, or runs these tests"),
    ("systemd-sysusers", "creates users of the machine"),
    ("systemctl ", "needs a running systemd"),
    ("journalctl ", "needs a running systemd"),
    ("adduser ", "changes users of the machine"),
    ("install -d -m 750 -o plainfold", "needs the user of the service"),
    ("runuser -u plainfold", "needs the user of the service"),
    ("plainfold mirrors", "asks the service of the machine"),
    ("apt ", "changes packages of the machine"),
    (".ci/release", "packs a program, as packages.rs does"),
    ("docker ", "needs Docker"),
    ("rustup ", "changes the toolchain"),
    ("npm ci", "the tests of the package, which rxdb_client.rs runs"),
];

/// The pages that need more than a mirror of the whole server.
pub(super) const PAGES: &[Page] = &[
    Page {
        file: "clients/rxdb/README.md",
        before: |_| (),
        steps: &[
            Step::of("%2Ffeed.sock").before(serve_a_socket_and_a_token),
            Step::of("app.example")
                .before(|scene| fs::remove_dir_all(scene.place.join("backup")).unwrap()),
        ],
    },
    Page {
        file: "docs/api.md",
        before: |scene| {
            let mirror = "[[mirror]]\nname = 'books'\nsource = 'feed:sample/library.ndjson'\ndirectory = '../books'\n";
            let socket = scene.place.join("plainfold.sock").display().to_string();
            let listen = format!("[api]\nlisten = ['{socket}', '127.0.0.1:{}']\n", scene.app_port);
            scene.write("etc/plainfold/plainfold.toml", &(listen + mirror));
            scene.copy("fixtures", "etc/plainfold/sample");
            let run = "plainfold run --config /etc/plainfold/plainfold.toml";
            assert!(scene.run(run).is_none());
        },
        steps: &[
            Step::of("/v1/mirrors").after(|_, outcomes| {
                let running = outcomes[0].stdout.contains("\"state\":\"running\"");
                assert!(running && outcomes[2].stdout.contains("done"), "{outcomes:?}");
            }),
            Step::of("prometheus.token").after(|_, outcomes| {
                assert!(outcomes[1].stdout.contains("\"state\":\"running\""), "{outcomes:?}");
            }),
        ],
    },
    Page {
        file: "docs/format.md",
        before: |scene| {
            scene.mirror_all();
            scene.stand_in("mirror/members/about%3Alibrary/attachments");
        },
        steps: &[
            Step::of("openssl").needs(&["openssl"]).after(|scene, outcomes| {
                let body = scene.mirror().join("members/about%3Alibrary/document.json");
                let body: Value = serde_json::from_slice(&fs::read(body).unwrap()).unwrap();
                let digest = &body["_attachments"]["rules.pdf"]["digest"];
                assert_eq!(*digest, format!("md5-{}", outcomes[0].stdout.trim()));
            }),
            Step::of("getfattr -n")
                .before(|scene| scene.stand_in("mirror"))
                .needs(&["getfattr", "b3sum"]),
            // It starts four programs for each file, so a single collection has to do.
            Step::of("getfattr --only-values")
                .needs(&["getfattr", "b3sum", "xxd"])
                .before(|scene| scene.stand_in("mirror/loans"))
                .after(|_, outcomes| assert_eq!(outcomes[0].stdout, "", "{}", outcomes[0])),
            Step::of("@tsv").before(|scene| scene.stand_in("mirror")).needs(&["jq", "b3sum"]),
        ],
    },
    Page {
        file: "docs/monitoring.md",
        before: |scene| {
            let live = "plainfold mirror http://admin@localhost:5984 ./mirror --live --password-file ./password";
            assert!(scene.run(live).is_none());
        },
        steps: &[Step::of("/metrics")
            .after(|_, outcomes| assert!(outcomes[0].stdout.contains("plainfold_build_info")))],
    },
    operations::PAGE,
    Page {
        file: "docs/rxdb-backup.md",
        before: |scene| scene.copy("fixtures/rxdb-backup-17.6.0/one", "rxdb-backup"),
        // Two of its attachments are damaged.
        steps: &[
            Step::of("verify ./rxdb-backup").codes(&[1, 1, 1]),
            Step::of("feed:books-again.ndjson").codes(&[1, 0]),
        ],
    },
    Page {
        file: "systemd/README.md",
        before: |scene| scene.check_out(),
        steps: &[
            Step::of("install -D").before(|scene| {
                for folder in ["etc/systemd/system", "usr/lib/sysusers.d"] {
                    fs::create_dir_all(scene.place.join(folder)).unwrap();
                }
            }),
            Step::of("/dev/stdin").after(|scene, _| {
                let file = scene.place.join("etc/plainfold/books.env");
                assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
                assert!(fs::read_to_string(&file).unwrap().contains("PLAINFOLD_SOURCE_PASSWORD="));
            }),
        ],
    },
];

/// Exposes a database on a socket and, with a token, on the application's port.
fn serve_a_socket_and_a_token(scene: &mut Scene) {
    const APP: &str = "
import { createRxDatabase } from 'rxdb';
import { getRxStorageMemory } from 'rxdb/plugins/storage-memory';
import { exposePlainfoldFeed } from 'plainfold-rxdb';

const database = await createRxDatabase({ name: 'library', storage: getRxStorageMemory() });
const properties = { id: { type: 'string', maxLength: 100 } };
const schema = { version: 0, primaryKey: 'id', type: 'object', properties, required: ['id'] };
const { books } = await database.addCollections({ books: { schema } });
await books.insert({ id: 'book-1' });
await exposePlainfoldFeed({ database, socketPath: 'feed.sock' });
const feed = await exposePlainfoldFeed({ database, port: Number(process.env.PORT), token: 'a token of many letters' });
console.log(feed.url);
for await (const _ of process.stdin);
await database.close();
";
    scene.write("node_modules/app.mjs", APP);
    scene.write("token", "a token of many letters\n");
    fs::remove_dir_all(scene.place.join("backup")).unwrap();
    scene.run("node node_modules/app.mjs");
}
