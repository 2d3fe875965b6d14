//! Invented databases sent through Plainfold and back: hostile ids, names, bodies and histories from a
//! seed, compared by the oracle. The same trial runs against any server: see `tests/oracle/roundtrip.py`.

use std::ops::RangeInclusive;

use crate::env::plainfold;
use crate::env::pouchdb::PouchServer;
use crate::env::random::Random;
use crate::env::{Place, oracle};

/// The number of seeds; the first is random. A failing seed is printed, and `PLAINFOLD_TEST_SEED`
/// repeats them all.
fn seeds(count: u64) -> RangeInclusive<u64> {
    let first = Random::from_environment().below(1_000_000);
    first..=first + count - 1
}

#[test]
fn invented_databases_come_back_from_a_server_as_they_were() {
    let server = PouchServer::start();
    oracle::assert_roundtrips(Some(&server.url()), seeds(3), &[]);
}

#[test]
fn invented_databases_come_back_with_every_branch_history_tombstone_and_their_security() {
    let server = PouchServer::start();
    oracle::assert_roundtrips(Some(&server.url()), seeds(4), &["--revisions"]);
}

#[test]
fn invented_feeds_come_back_as_they_were() {
    oracle::assert_roundtrips(None, seeds(10), &[]);
}

#[test]
fn without_revisions_a_database_put_back_has_the_same_winners_and_no_other_branches() {
    let (server, place) = (PouchServer::start(), Place::new());
    let url = |db: &str| format!("{}/{db}", server.url());
    for db in ["invented", "twin"] {
        oracle::generate(&url(db), 5);
    }
    plainfold::mirror(&url("invented"), &place.mirror()).assert_code(0);
    let mirror = place.mirror().display().to_string();
    plainfold::run(["restore", &mirror, &url("back")]).assert_code(0);

    // That nothing of it is missed is known of the twin, which has all branches and their histories.
    oracle::assert_equal_databases(&url("invented"), &url("twin"), &["--leaves", "--security"]);
    oracle::assert_equal_databases(&url("invented"), &url("back"), &[]);
    let said = oracle::differences_of_databases(&url("invented"), &url("back"), &["--leaves"]);
    for words in ["is only at the left", "revisions of history", "does not know"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
