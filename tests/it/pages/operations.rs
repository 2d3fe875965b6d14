//! The procedures of `docs/operations.md`, and what holds after each.

use std::fs;

use serde_json::{Value, json};

use super::scene::Scene;
use super::{Page, Step};
use crate::env::plainfold::{self, Outcome};

pub(super) const PAGE: Page = Page {
    file: "docs/operations.md",
    before: |scene| {
        scene.write("etc/plainfold/password", "secret\n");
        mirror_books(scene).assert_code(0);
    },
    steps: &[
        Step::of("jq").needs(&["jq"]).after(|_, outcomes| {
            // No process works on the mirror, which is what the answer is to say.
            assert_eq!(outcomes[0].stdout.trim(), "false", "{}", outcomes[0]);
        }),
        Step::of("plainfold diff").before(lose_most).codes(&[1]).after(|_, outcomes| {
            assert!(outcomes[0].stdout.lines().count() > 10, "{}", outcomes[0]);
        }),
        Step::of("--undelete --collections").fresh().before(lose_most).after(|scene, _| {
            assert_eq!((held_back(scene), at_the_source(scene)), (0, books_of_the_fixture()));
            scene.assert_mirrored("books");
        }),
        Step::of("plainfold release").before(lose_most).after(|scene, _| {
            assert_eq!(held_back(scene), 0);
            assert!(at_the_source(scene) < books_of_the_fixture());
            scene.assert_mirrored("books");
        }),
        Step::of(".plainfold/trash").fresh().before(lose_a_few).after(|_, outcomes| {
            assert_eq!(outcomes[0].stdout.lines().count(), 3, "{}", outcomes[0]);
        }),
        Step::of("--undelete --since").after(|scene, _| {
            assert_eq!(at_the_source(scene), books_of_the_fixture());
            scene.assert_mirrored("books");
        }),
        Step::of("rm -r").after(|scene, _| scene.assert_mirrored("books")),
        Step::of("--bytes --repair")
            .before(damage_one)
            .after(|scene, _| scene.assert_mirrored("books")),
        Step::of("cp -a")
            .before(|scene| {
                for folder in ["backup", "remote/mirror"] {
                    fs::create_dir_all(scene.place.join(folder)).unwrap();
                }
            })
            .after(|scene, _| {
                for copy in ["backup/mirror", "remote/mirror"] {
                    plainfold::run(["verify", scene.place.join(copy).to_str().unwrap()])
                        .assert_code(0);
                }
            }),
        Step::of("--source-moved")
            .before(follow_the_old_host)
            .after(|scene, _| scene.assert_mirrored("books")),
    ],
};

fn mirror_books(scene: &Scene) -> Outcome {
    let (url, mirror) = (scene.url("books"), scene.mirror());
    plainfold::run(["mirror", &url, mirror.to_str().unwrap(), "--trash", "30"])
}

fn ids_and_revisions(scene: &Scene) -> Vec<(String, String)> {
    let answer = scene.server.request("GET", "/books/_all_docs", b"").assert_ok().json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = answer["rows"].as_array().unwrap().iter();
    rows.map(|row| (text(&row["id"]), text(&row["value"]["rev"]))).collect()
}

fn lose(scene: &Scene, ids: &[(String, String)]) -> Outcome {
    let deleted = |(id, rev): &(String, String)| json!({"_id": id, "_rev": rev, "_deleted": true});
    let docs = json!({"docs": ids.iter().map(deleted).collect::<Vec<_>>()});
    scene.server.request("POST", "/books/_bulk_docs", docs.to_string().as_bytes()).assert_ok();
    mirror_books(scene)
}

/// Nine documents in ten are deleted at the source.
fn lose_most(scene: &mut Scene) {
    let ids = ids_and_revisions(scene);
    lose(scene, &ids[ids.len() / 10..]).assert_code(1);
    assert!(held_back(scene) > 0);
}

fn lose_a_few(scene: &mut Scene) {
    lose(scene, &ids_and_revisions(scene)[..3]).assert_code(0);
}

fn damage_one(scene: &mut Scene) {
    let books = fs::read_dir(scene.mirror().join("books")).unwrap();
    let mut bodies = books.map(|book| book.unwrap().path().join("document.json"));
    fs::write(bodies.find(|body| body.is_file()).unwrap(), "{\"_id\":").unwrap();
}

/// The mirror remembers another place than the one that the server has now.
fn follow_the_old_host(scene: &mut Scene) {
    let record = scene.mirror().join(".plainfold/collections/books.json");
    let text = fs::read_to_string(&record).unwrap();
    let host = scene.server.address().to_string();
    assert!(text.contains(&host), "{text}");
    fs::write(record, text.replace(&host, "old-host:5984")).unwrap();
}

fn held_back(scene: &Scene) -> u64 {
    plainfold::status(&scene.mirror())["collections"][0]["held_back"].as_u64().unwrap()
}

fn at_the_source(scene: &Scene) -> u64 {
    let info = scene.server.request("GET", "/books", b"").assert_ok().json();
    info["doc_count"].as_u64().unwrap()
}

/// How many books the library holds before a test deletes any.
fn books_of_the_fixture() -> u64 {
    250
}
