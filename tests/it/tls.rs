//! Encrypted connections: trusted certificates, client certificates, and the messages for all
//! others.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

use ::plainfold::client::couchdb::{Address, Client, ClientOptions, Patience, Tls};

use crate::env::door::{Door, Reply};
use crate::env::plainfold::{self, Outcome};
use crate::env::tls::{before, before_polite, openssl, self_signed, signed};
use crate::env::{DEADLINE, Place, tls};

/// Names both ways to this machine.
const HERE: &str = "subjectAltName=DNS:localhost,IP:127.0.0.1";

struct Setup {
    place: Place,
    door: Door,
}

impl Setup {
    fn new() -> Self {
        Self { place: Place::new(), door: Door::start(&["a"], |_| Reply::Honest) }
    }

    fn folder(&self) -> &Path {
        self.place.path()
    }

    /// A port with this certificate.
    fn tls(&self, name: &str) -> SocketAddr {
        before(self.door.address(), self.folder(), name, None)
    }

    fn mirror(&self, port: SocketAddr, more: &[&str]) -> Outcome {
        self.mirror_from(&format!("https://localhost:{}/a", port.port()), more)
    }

    fn mirror_from(&self, source: &str, more: &[&str]) -> Outcome {
        let to = self.place.mirror();
        let more = more.iter().map(|one| match one.strip_prefix('@') {
            Some(file) => self.place.join(file).to_str().unwrap().to_owned(),
            None => (*one).to_owned(),
        });
        let first = ["mirror".to_owned(), source.to_owned(), to.to_str().unwrap().to_owned()];
        plainfold::run(first.into_iter().chain(more))
    }
}

#[test]
fn a_self_signed_certificate_as_openssl_makes_it_is_trusted_if_it_is_given() {
    let setup = Setup::new();
    for (name, more) in [
        ("plain", ""),
        ("named", "-addext subjectAltName=DNS:localhost"),
        ("leaf", "-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:localhost"),
    ] {
        self_signed(setup.folder(), name, more);
        let port = setup.tls(name);
        let _ = fs::remove_dir_all(setup.place.mirror());
        let refused = setup.mirror(port, &[]).assert_code(3);
        assert!(refused.stderr.contains("--ca-file"), "{refused}");
        assert!(!refused.stderr.contains("trying again"), "it is final: {refused}");
        setup.mirror(port, &["--ca-file", &format!("@{name}.pem")]).assert_code(0);
    }
    // Another one of the same name is another one.
    fs::remove_dir_all(setup.place.mirror()).unwrap();
    self_signed(setup.folder(), "other", "-addext subjectAltName=DNS:localhost");
    let refused = setup.mirror(setup.tls("other"), &["--ca-file", "@named.pem"]).assert_code(3);
    assert!(refused.stderr.contains("--ca-file"), "{refused}");
}

#[test]
fn all_commands_trust_the_given_authority() {
    let setup = Setup::new();
    self_signed(setup.folder(), "ca", "");
    signed(setup.folder(), "ca", "server", HERE, "-days 2");
    let port = setup.tls("server");
    let url = format!("https://127.0.0.1:{}/a", port.port());
    setup.mirror_from(&url, &["--ca-file", "@ca.pem"]).assert_code(0);
    let (mirror, ca) = (setup.place.mirror(), setup.place.join("ca.pem"));
    let (mirror, ca) = (mirror.to_str().unwrap(), ca.to_str().unwrap());
    for arguments in [
        vec!["verify", mirror, "--against", &url],
        vec!["diff", mirror, &url],
        vec!["restore", mirror, &url, "--on-existing", "skip"],
    ] {
        let refused = plainfold::run(&arguments).assert_code(3);
        assert!(refused.stderr.contains("--ca-file"), "{refused}");
        plainfold::run(arguments.iter().chain(&["--ca-file", ca])).assert_code(0);
    }
    // The variable that OpenSSL has for this works too.
    let arguments = ["diff", mirror, &url];
    let mut command = plainfold::command_of(Path::new(env!("CARGO_BIN_EXE_plainfold")), arguments);
    command.env("PLAINFOLD_CA_FILE", ca);
    plainfold::run_command(command).assert_code(0);
    let mut command = plainfold::command_of(Path::new(env!("CARGO_BIN_EXE_plainfold")), arguments);
    command.env("SSL_CERT_FILE", ca);
    plainfold::run_command(command).assert_code(0);
}

#[test]
fn what_is_wrong_with_a_certificate_is_said_in_words_and_is_final() {
    let setup = Setup::new();
    self_signed(setup.folder(), "ca", "");
    signed(
        setup.folder(),
        "ca",
        "elsewhere",
        "subjectAltName=DNS:couch.example.org,DNS:b.example",
        "-days 2",
    );
    signed(setup.folder(), "ca", "old", HERE, "-days -1");
    let old = "x509 -req -in old.csr -signkey old.key -out oldself.pem -extfile ext -days -1";
    openssl(setup.folder(), old);
    fs::copy(setup.place.join("old.key"), setup.place.join("oldself.key")).unwrap();
    for (name, ca, words) in [
        ("elsewhere", "@ca.pem", "couch.example.org"),
        ("old", "@ca.pem", "has expired"),
        ("oldself", "@oldself.pem", "has expired"),
    ] {
        let _ = fs::remove_dir_all(setup.place.mirror());
        let refused = setup.mirror(setup.tls(name), &["--ca-file", ca]).assert_code(3);
        assert!(refused.stderr.contains(words), "{name}: {refused}");
        assert!(!refused.stderr.contains("trying again"), "{refused}");
    }
    // A server without TLS.
    let _ = fs::remove_dir_all(setup.place.mirror());
    let plain = setup.mirror(setup.door.address(), &["--ca-file", "@ca.pem"]).assert_code(3);
    assert!(plain.stderr.contains("does not speak TLS"), "{plain}");
}

#[test]
fn files_that_cannot_be_used_are_refused_at_once() {
    let setup = Setup::new();
    self_signed(setup.folder(), "ca", "");
    openssl(setup.folder(), "pkey -in ca.key -out locked.key -aes256 -passout pass:secret");
    fs::write(setup.place.join("text"), "no certificate").unwrap();
    for (more, words) in [
        (&["--ca-file", "@missing"][..], "cannot be read"),
        (&["--ca-file", "@text"], "no certificate in PEM"),
        (&["--ca-file", "@ca.key"], "no certificate in PEM"),
        (&["--client-cert", "@ca.pem"], "--client-key"),
        (&["--client-cert", "@ca.pem", "--client-key", "@text"], "no private key"),
        (&["--client-cert", "@ca.pem", "--client-key", "@locked.key"], "encrypted"),
        (&["--client-key", "@ca.key"], "--client-cert"),
    ] {
        let refused = setup.mirror_from("https://localhost:1/a", more).assert_code(2);
        assert!(refused.stderr.contains(words), "{more:?}: {refused}");
    }
}

#[test]
fn a_server_that_wants_to_see_a_certificate_sees_it() {
    let setup = Setup::new();
    self_signed(setup.folder(), "ca", "");
    signed(setup.folder(), "ca", "server", HERE, "-days 2");
    signed(setup.folder(), "ca", "client", "extendedKeyUsage=clientAuth", "-days 2");
    let both = [fs::read(setup.place.join("client.pem")), fs::read(setup.place.join("client.key"))];
    fs::write(setup.place.join("both.pem"), both.map(Result::unwrap).concat()).unwrap();
    let port = tls::before(setup.door.address(), setup.folder(), "server", Some("ca"));
    let refused = setup.mirror(port, &["--ca-file", "@ca.pem"]).assert_code(3);
    assert!(refused.stderr.contains("--client-cert"), "{refused}");
    setup.mirror(port, &["--ca-file", "@ca.pem", "--client-cert", "@both.pem"]).assert_code(0);
    let apart =
        ["--ca-file", "@ca.pem", "--client-cert", "@client.pem", "--client-key", "@client.key"];
    setup.mirror(port, &apart).assert_code(0);
}

#[tokio::test]
async fn a_slow_first_answer_over_tls_is_waited_for_though_the_port_answers_plain_requests_too() {
    let place = Place::new();
    let (ended, ends) = channel();
    // The answer comes when the port has been probed.
    let door = Door::start(&["a"], move |_| {
        ends.recv_timeout(DEADLINE).expect("the port is probed");
        Reply::Honest
    });
    self_signed(place.path(), "server", "-addext subjectAltName=DNS:localhost");
    let port = before_polite(door.address(), place.path(), "server", ended).port();
    let given = Address::parse(&format!("https://localhost:{port}/a")).unwrap();
    let options = ClientOptions {
        tls: Tls { ca_file: Some(place.join("server.pem")), ..Tls::default() },
        patience: Patience { unprobed: Duration::ZERO, ..Patience::default() },
        ..ClientOptions::default()
    };
    let client = Client::new(given.address, options).unwrap();
    client.database(&"a".into()).info().await.unwrap();
}
