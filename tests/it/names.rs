//! Which agent answers for a config, and what a name means that no mirror has.

use std::fs;

use crate::env::agent::{Setup, feed, said};
use crate::env::library;

#[test]
fn the_agent_of_another_config_does_not_answer_for_this_one() {
    let setup = Setup::new();
    setup.write(&[setup.mirror("books", &feed(&library()), "")]);
    let mut agent = setup.start();
    said(&mut agent, "books", "caught up with");
    let list = setup.mirrors(0);
    assert_eq!(list["config"], setup.config().to_str().unwrap(), "{list}");
    // The same file by another path is the same config.
    let link = setup.place.join("link.toml");
    std::os::unix::fs::symlink(setup.config(), &link).unwrap();
    setup.run(&["mirrors", "--config", link.to_str().unwrap()]).assert_code(0);

    let other = setup.place.join("other.toml");
    let mirror = setup.mirror("loans", &feed(&library()), "");
    let ask = |listen: &str| {
        fs::write(&other, format!("[api]\nlisten = {listen}\n{mirror}")).unwrap();
        let outcome = setup.run(&["mirrors", "--config", other.to_str().unwrap()]);
        let outcome = outcome.assert_code(5);
        assert!(!outcome.stdout.contains("books"), "{outcome}");
        outcome
    };
    let outcome = ask("['./agent.sock']");
    let own = setup.config().display().to_string();
    assert!(outcome.stderr.contains(&format!("the agent of {own} answers")), "{outcome}");
    assert!(outcome.stderr.contains("give your config another `[api] listen`"), "{outcome}");
    let outcome = ask("['./other.sock']");
    assert!(outcome.stdout.contains("not running"), "{outcome}");
    assert!(outcome.stderr.contains("no `plainfold run` answers for the config"), "{outcome}");
    let outcome = ask("[]");
    assert!(outcome.stdout.contains("unknown"), "{outcome}");
    assert!(outcome.stderr.contains("name a socket"), "{outcome}");
    agent.terminate();
    agent.wait().assert_code(0);
}

#[test]
fn a_name_that_no_mirror_has_is_said_to_be_one() {
    let setup = Setup::new();
    setup.write(&[setup.mirror("library", &feed(&library()), "")]);
    let (config, dir) = (setup.config().display().to_string(), setup.place.path());
    for command in [
        &["status", "libary"][..],
        &["tail", "libary"],
        &["verify", "libary"],
        &["restore", "libary", "feed:out.ndjson"],
        &["diff", "libary", "library"],
        &["pause", "libary"],
        &["rescan", "libary"],
        &["release", "libary", "books"],
        &["path", "libary", "books", "1"],
    ] {
        let outcome = setup.run(command).assert_code(2);
        let said =
            format!("libary is neither a directory nor the name of a mirror in {config}: `pl");
        assert!(outcome.stderr.contains(&said), "{outcome}");
        assert!(outcome.stderr.contains("PLAINFOLD_CONFIG names another config"), "{outcome}");
    }
    // What cannot be a name is a directory.
    let outcome = setup.run(&["status", "./libary"]).assert_code(5);
    assert!(outcome.stderr.contains("is not a mirror"), "{outcome}");
    fs::create_dir(dir.join("libary")).unwrap();
    let outcome = setup.run(&["status", "libary"]).assert_code(5);
    assert!(outcome.stderr.contains("is not a mirror"), "{outcome}");
    setup.replace("[[mirror]]\nnam = 'x'\n");
    let outcome = setup.run(&["status", "other"]).assert_code(2);
    assert!(outcome.stderr.contains("the names of mirrors cannot be read"), "{outcome}");
    fs::remove_file(setup.config()).unwrap();
    let outcome = setup.run(&["status", "other"]).assert_code(2);
    assert!(outcome.stderr.contains("there is no such file"), "{outcome}");
}
