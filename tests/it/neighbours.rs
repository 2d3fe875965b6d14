//! Mirrors of an agent that are in trouble, each in another way, beside one that is well and does not
//! notice.

use std::fs;

use serde_json::json;

use crate::env::Place;
use crate::env::agent::{Setup, of, said};
use crate::env::feed::FeedFile;
use crate::env::oracle;
use crate::env::plainfold;
use crate::env::tiny::Tiny;

/// A feed file of its own in a place.
fn feed_in(place: &Place, name: &str) -> FeedFile {
    let mut feed = FeedFile::create(place.join(name));
    feed.put("first", json!({"filler": "-".repeat(1000)}), &[]);
    feed
}

#[test]
fn a_full_disk_a_dead_server_and_a_damaged_mirror_cost_the_others_nothing() {
    let Some(tiny) = Tiny::mount(24) else { return };
    let setup = Setup::new();
    let mut well = feed_in(&setup.place, "well.ndjson");
    let mut full = feed_in(&setup.place, "full.ndjson");
    let damaged = feed_in(&setup.place, "damaged.ndjson");
    // Nobody listens there: the port is free again.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    plainfold::mirror(&damaged.source(), &setup.place.join("damaged")).assert_code(0);
    fs::write(setup.place.join("damaged/.plainfold/format.json"), "{").unwrap();
    let on_tiny = format!("directory = '{}'", tiny.mirror().display());
    setup.write(&[
        setup.mirror("damaged", &damaged.source(), ""),
        setup.mirror("dead", &format!("http://127.0.0.1:{port}/shelf"), ""),
        setup
            .mirror("full", &full.source(), "")
            .replace(&format!("directory = '{}'", setup.place.join("full").display()), &on_tiny),
        setup.mirror("well", &well.source(), ""),
    ]);
    let mut agent = setup.start();
    let mut tail = plainfold::spawn_command(setup.command(&["tail", "well", "--since", "0"]));
    tail.wait_for_event(|event| event["documentId"] == "first");
    let mut filling = plainfold::spawn_command(setup.command(&["tail", "full", "--since", "0"]));
    filling.wait_for_event(|event| event["documentId"] == "first");
    tiny.fill(0);
    full.put("second", json!({"filler": "+".repeat(100_000)}), &[]);
    said(&mut agent, "full", "the mirror waits");

    well.put("second", json!({"n": 2}), &[]);
    well.delete("first");
    tail.wait_for_event(|event| event["documentId"] == "second");
    tail.wait_for_event(|event| event["documentId"] == "first" && event["deleted"] == true);
    let list = setup.mirrors(1);
    let state = |name: &str| of(&list, name)["state"].as_str().unwrap().to_owned();
    assert_eq!((state("well"), state("damaged")), ("running".into(), "parked".into()), "{list:#}");
    assert!(of(&list, "well")["trouble"].is_null(), "{list:#}");
    for troubled in ["dead", "full"] {
        assert!(of(&list, troubled).to_string().contains("rouble\":\""), "{list:#}");
    }
    // Each is well again when its own fault is mended.
    tiny.empty();
    filling.wait_for_event(|event| event["documentId"] == "second");
    oracle::assert_equals_feed(well.path(), &setup.place.join("well"));
    oracle::assert_equals_feed(full.path(), &tiny.mirror());
    agent.terminate();
    agent.wait().assert_code(0);
}
