//! Config files as people write them, and as they should not.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::config::SecretPlace;
use crate::document::DeletionLimit;
use crate::mirror::{Deleted, JsonStyle};

/// Where the config of a test is said to be. Nothing is there.
const PATH: &str = "/nowhere/plainfold/plainfold.toml";

fn parse(text: &str) -> Result<AgentConfig, Vec<String>> {
    match AgentConfig::parse(text, Path::new(PATH)) {
        Ok(config) => Ok(config),
        Err(FileError::Wrong { problems, .. }) => {
            Err(problems.iter().map(ToString::to_string).collect())
        }
        Err(other) => panic!("{other}"),
    }
}

/// The config of one mirror with further keys.
fn with(keys: &str) -> Result<MirrorEntry, Vec<String>> {
    let text =
        format!("[[mirror]]\nname = 'a'\nsource = 'http://h:5984'\ndirectory = 'a'\n{keys}\n");
    parse(&text).map(|config| config.mirrors[0].clone())
}

/// The mistakes in the config of one mirror with further keys, which begin on line 5.
fn wrong(keys: &str) -> Vec<String> {
    with(keys).expect_err(keys)
}

#[test]
fn a_mirror_needs_three_keys_and_the_rest_has_defaults() {
    let config = parse("[[mirror]]\nname='a'\nsource='feed:x.ndjson'\ndirectory='m/a'").unwrap();
    let [entry] = &config.mirrors[..] else { panic!("{config:?}") };
    assert_eq!(entry.name.as_str(), "a");
    assert_eq!(entry.source, "feed:/nowhere/plainfold/x.ndjson");
    assert_eq!(entry.directory, Path::new("/nowhere/plainfold/m/a"));
    assert_eq!(entry.schedule, Schedule::Live);
    assert!(entry.options.live);
    assert_eq!(entry.options.attachments, Some(true), "not what the mirror remembers");
    assert_eq!(entry.options.collections, Some(Vec::new()));
    assert_eq!(config.api.listen.len(), 1);
    assert_eq!(config.api.tokens, Path::new("/nowhere/plainfold/tokens.json"));
    entry.lower().unwrap();
}

#[test]
fn every_key_is_read() {
    let entry = with(
        "collections = ['b*']\nexclude = ['tmp']\nattachments = false\nrevisions = true\ndeleted = 'keep'\n\
         json = 'pretty'\nnames = 'portable'\nmax_delete = '10%,5'\nmax_failures = 0\ntrash = 30\n\
         reserve = '1GiB'\nmode = '0750'\nexisting = true\nallow_empty = true\ngive_up_after = '2m'\n\
         max_runs = 8\nschedule = { every = '1h' }\ncredentials = { token_env = 'T' }\n\
         tls = { ca_file = 'ca.pem', client_cert = '/c.pem', client_key = '/k.pem' }",
    )
    .unwrap();
    let options = &entry.options;
    assert_eq!(options.collections.as_deref(), Some(&["b*".to_owned()][..]));
    assert_eq!(options.exclude, ["tmp"]);
    assert_eq!((options.attachments, options.revisions), (Some(false), Some(true)));
    assert_eq!((options.deleted, options.json), (Some(Deleted::Keep), Some(JsonStyle::Pretty)));
    let limit = DeletionLimit { percent: 10, documents: 5 };
    assert_eq!(options.max_delete.unwrap().0, Some(limit));
    assert_eq!((options.max_failures, options.max_runs), (0, 8));
    assert_eq!((options.trash, options.reserve), (Some(30), Some(1 << 30)));
    assert_eq!(options.mode.unwrap().to_string(), "0750");
    assert!(options.existing && options.allow_empty && !options.live);
    assert_eq!(options.give_up_after, Some(Duration::from_secs(120)));
    assert_eq!(entry.schedule, Schedule::Every(Duration::from_secs(3600)));
    assert_eq!(entry.access.token, Some(SecretPlace::Variable("T".to_owned())));
    assert_eq!(entry.access.tls.ca_file.as_deref(), Some(Path::new("/nowhere/plainfold/ca.pem")));
}

#[test]
fn a_mirror_overrides_the_defaults_key_by_key() {
    let config = parse(
        "[defaults]\ntrash = 30\nschedule = { cron = '0 3 * * *' }\ncredentials = { password_file = 'p' }\n\
         [[mirror]]\nname = 'a'\nsource = 'http://me@h/a'\ndirectory = 'a'\n\
         [[mirror]]\nname = 'b'\nsource = 'http://h/b'\ndirectory = 'b'\ntrash = 0\nschedule = 'live'\n\
         credentials = {}",
    )
    .unwrap();
    let [a, b] = &config.mirrors[..] else { panic!("{config:?}") };
    assert_eq!((a.options.trash, b.options.trash), (Some(30), Some(0)));
    assert!(!a.schedule.is_live() && b.schedule.is_live());
    let file = SecretPlace::File("/nowhere/plainfold/p".into());
    assert_eq!((&a.access.password, &b.access.password), (&Some(file), &None));
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_key_that_was_meant() {
    for (keys, said) in [
        (
            "atachments = true",
            "line 5: [[mirror]] has no key `atachments`: did you mean `attachments`?",
        ),
        (
            "\n\nCollections = []",
            "line 7: [[mirror]] has no key `Collections`: did you mean `collections`?",
        ),
        ("credentials = { passwordfile = 'x' }", "did you mean `password_file`?"),
        ("schedule = { evry = '1h' }", "line 5: schedule has no key `evry`: did you mean `every`?"),
        ("zzz = 1", "line 5: [[mirror]] has no key `zzz`: its keys are name, source,"),
        (
            "[defauls]\ntrash = 1",
            "line 5: the config has no key `defauls`: did you mean `defaults`?",
        ),
        ("[api]\nlisten_on = 1", "line 6: [api] has no key `listen_on`: did you mean `listen`?"),
    ] {
        let problems = wrong(keys);
        assert!(problems.len() == 1 && problems[0].contains(said), "{keys}: {problems:?}");
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_line_and_what_is_allowed() {
    for (keys, said) in [
        ("trash = 'many'", "line 5: `trash` must be a number of days, such as 30"),
        ("trash = -1", "`trash` must be a number of days, such as 30, and is a whole number"),
        ("trash = nan", "and is a number with a fraction"),
        ("trash = 1.5", "`trash` must be"),
        ("trash = 5000000000", "`trash` must be"),
        ("attachments = 1", "line 5: `attachments` must be true or false, and is a whole number"),
        ("attachments = 'yes'", "`attachments` must be true or false"),
        ("reserve = '-1GiB'", "`reserve` must be a size, such as \"1GiB\""),
        ("reserve = -5", "`reserve` must be a size"),
        ("reserve = 'much'", "`reserve` must be a size"),
        ("mode = 0o750", "`mode` must be the mode of folders as a text"),
        ("mode = '0650'", "`mode` must be the mode"),
        ("deleted = 'archive'", "`deleted` must be \"remove\" or \"keep\""),
        ("json = true", "`json` must be \"as-sent\" or \"pretty\""),
        ("names = 'x'", "`names` must be \"native\" or \"portable\""),
        ("max_delete = '30'", "`max_delete` must be a share"),
        ("max_failures = -1", "`max_failures` must be a number of rows"),
        ("max_runs = 0", "`max_runs` must be a number of connections"),
        ("max_runs = 70000", "`max_runs` must be a number of connections"),
        ("give_up_after = 30", "`give_up_after` must be a duration"),
        ("give_up_after = '30'", "`30` is not a duration"),
        ("collections = 'books'", "`collections` must be an array of names or globs"),
        ("collections = [1]", "`collections` must be an array"),
        ("collections = ['']", "it is empty"),
        ("exclude = ['{a']", "`{a` is not a glob"),
        (
            "tls = { ca_file = '~/ca.pem' }",
            "`ca_file` must be the path of a PEM file: `~` and variables",
        ),
        ("schedule = 'hourly'", "`schedule` must be \"live\""),
        ("schedule = {}", "`schedule` must be \"live\""),
        ("schedule = { every = '0' }", "a run every 0 s is not possible"),
        ("schedule = { every = '-1h' }", "`-1h` is not a duration"),
        ("schedule = { every = 3600 }", "`every` must be a duration, such as \"1h\""),
        ("schedule = { cron = 'x' }", "`x` is not a cron expression"),
        (
            "schedule = { cron = '0 3 * * *', time_zone = 'Mars' }",
            "the time zone `Mars` is not known",
        ),
        ("schedule = { every = '1h', cron = '0 3 * * *' }", "give only one"),
        ("schedule = { every = '1h', time_zone = 'UTC' }", "belongs to `cron`"),
        ("credentials = 'secret'", "`credentials` must be a table"),
        ("credentials = { auth = 'digest' }", "`auth` must be \"basic\" or \"session\""),
        ("credentials = { password_file = '' }", "it is empty"),
        ("credentials = { password_credential = '../x' }", "not a path"),
        ("credentials = { token_file = 'x', token_env = 'Y' }", "give only one"),
        ("tls = { client_key = 'x' }", "`client_key` needs `client_cert`"),
        ("exclude = ['books']\ncollections = ['books']", "is in `collections` and in `exclude`"),
        ("[api]\nlisten = 5984", "`listen` must be the path of a Unix socket"),
        ("[api]\nlisten = ['nowhere:1']", "`listen` must be"),
        ("[api]\nlisten = ['/s', '127.0.0.1']", "an address with a port"),
        ("[api]\ntokens = ['t']", "`tokens` must be the path of a file"),
        ("api = 1", "[[mirror]] has no key `api`"),
    ] {
        let problems = wrong(keys);
        assert!(problems.len() == 1 && problems[0].contains(said), "{keys}: {problems:?}");
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let problems = parse(
        "allow_secrets = 1\napi = 5\n[defaults]\ntrash = 'x'\nzzz = 1\n[[mirror]]\nname = 'A/b'\n\
         source = 'http://h'\ndirectory = ''\n[[mirror]]\n",
    )
    .unwrap_err();
    let lines: Vec<_> = problems.iter().map(|text| text.split(':').next().unwrap()).collect();
    let expected = [1, 2, 4, 5, 7, 9, 10, 10, 10].map(|line| format!("line {line}"));
    assert_eq!(lines, expected, "{problems:#?}");
}

#[test]
fn sources_that_are_not_sources_are_refused_without_their_secrets() {
    for (source, said) in [
        ("", "it is empty"),
        ("ftp://h/x", "is not a source"),
        ("htp://me:hunter2@h/x", "is not a source"),
        ("h/db", "is not a source"),
        ("feed:", "is not a source"),
        ("feed:-", "the agent has no standard input"),
        ("http://me:hunter2@h/db", "the URL holds a password, which does not belong in a config"),
        ("http://me@h/db", "names the user `me`, and `credentials` names no password"),
        ("http://h/a?x=1", "cannot be used"),
        ("http://h:99999", "cannot be used"),
        ("\\u001b[2Jhttp://h", "it holds control characters"),
    ] {
        let text = format!("[[mirror]]\nname='a'\ndirectory='a'\nsource=\"{source}\"");
        let problems = parse(&text).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(said), "{source}: {problems:?}");
        assert!(
            problems[0].starts_with("line 4: ") && !problems[0].contains("hunter2"),
            "{problems:?}"
        );
    }
    let problems = parse(
        "[[mirror]]\nname='a'\ndirectory='a'\nsource='http://h/db'\ncollections=['x']\n\
         [[mirror]]\nname='b'\ndirectory='b'\nsource='feed:x'\nrevisions=true",
    );
    let problems = problems.unwrap_err();
    assert!(problems[0].starts_with("line 5: ") && problems[0].contains("`db`"), "{problems:?}");
    assert!(
        problems[1].starts_with("line 10: ") && problems[1].contains("winning"),
        "{problems:?}"
    );
}

#[test]
fn credentials_that_do_not_fit_the_url_are_refused() {
    let fits = |source: &str, credentials: &str| {
        parse(&format!(
            "[[mirror]]\nname='a'\ndirectory='a'\nsource='{source}'\ncredentials = {{ {credentials} }}"
        ))
        .map(drop)
    };
    fits("http://h", "").unwrap();
    fits("http://h", "token_file = 't'").unwrap();
    fits("http://h", "token_command = 'print a token'").unwrap();
    fits("http://me@h", "password_env = 'P', auth = 'session'").unwrap();
    fits("http+unix://me@%2Frun%2Fcouch.sock/db", "password_credential = 'couch'").unwrap();
    fits("feed:x", "password_file = 'p'").unwrap();
    for (source, credentials) in [
        ("http://h", "password_file = 'p'"),
        ("http://h", "auth = 'session'"),
        ("http://me@h", "token_file = 't'"),
        ("http://me@h", ""),
    ] {
        fits(source, credentials).unwrap_err();
    }
}

#[test]
fn a_secret_in_the_config_is_refused_unless_it_was_asked_for_and_is_never_shown() {
    for keys in ["credentials = { password = 'hunter2' }", "credentials = { token = 'hunter2' }"] {
        let problems = wrong(keys);
        assert!(problems[0].contains("does not belong in a config"), "{problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    let text = "allow_secrets = true\n[[mirror]]\nname='a'\ndirectory='a'\nsource='http://me:hunter2@h/db'";
    let config = parse(text).unwrap();
    assert_eq!(config.mirrors[0].source, "http://me@h/db");
    assert!(!format!("{config:?}").contains("hunter2"));
    config.mirrors[0].lower().unwrap();
    let other = parse(&text.replace("hunter2", "hunter3")).unwrap();
    assert_eq!(difference(&config, &other).changed.len(), 1, "the secret counts");
    let bad = text.replace(
        "http://me:hunter2@h/db'",
        "http://me@h/db'\ncredentials = { password = '\\u0000hunter2' }",
    );
    let problems = parse(&bad.replace("'\\u0000hunter2'", "\"\\u0001hunter2\"")).unwrap_err();
    assert!(!problems[0].contains("hunter2") && problems[0].contains("control"), "{problems:?}");
}

#[test]
fn mirrors_that_are_in_the_way_of_each_other_are_refused_with_both_names() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("m/sub")).unwrap();
    std::os::unix::fs::symlink("m", root.join("link")).unwrap();
    let path = root.join("conf/plainfold.toml");
    let check = |one: &str, other: &str| {
        let entry = |name: &str, directory: &str| {
            format!("[[mirror]]\nname='{name}'\nsource='http://h/db'\ndirectory='{directory}'\n")
        };
        let text = entry("first", one) + &entry("second", other);
        AgentConfig::parse(&text, &path).map(drop).map_err(|error| error.to_string())
    };
    check("../m", "../n").unwrap();
    check("../m", "../mm").unwrap();
    for (one, other, said) in [
        ("../m", "../m", "have the same directory"),
        ("../m", "../m/", "have the same directory"),
        ("../m", "../x/../link", "have the same directory"),
        ("../m", "../link/sub", "is inside that of"),
        ("../m/sub/deep/er", "../m", "is inside that of"),
        ("../new/a/b", "../new/./a", "is inside that of"),
    ] {
        let error = check(one, other).unwrap_err();
        assert!(error.contains(said), "{one} {other}: {error}");
        for part in ["`first` (line 1)", "`second` (line 5)"] {
            assert!(error.contains(part), "{one} {other}: {error}");
        }
    }
    let error = check(".", "../n").unwrap_err();
    assert!(
        error.contains("contains this config") && error.contains("`first` (line 1)"),
        "{error}"
    );
    check("../m", "plainfold.toml/x").unwrap();
    let same = "[[mirror]]\nname='a'\nsource='feed:x'\ndirectory='a'\n[[mirror]]\nname='a'\nsource='feed:x'\ndirectory='b'";
    let problems = parse(same).unwrap_err();
    assert!(problems[0].starts_with("line 5: the mirrors on line 1 and on line 5"), "{problems:?}");
}

#[test]
fn what_is_not_a_config_is_refused() {
    for (text, said) in [
        ("", "it names no mirror"),
        ("# nothing\n", "it names no mirror"),
        ("mirror = []", "it names no mirror"),
        ("[mirror]\nname = 'a'", "line 1: each mirror is a section of its own"),
        ("mirror = 'a'", "each mirror is a section of its own"),
        ("mirror = [1]", "each mirror is a section of its own"),
        ("[api]\n[api]\n", "line 2: it is not TOML"),
        ("\n\nx = ", "line 3: it is not TOML"),
        ("a = 'hunter2", "line 1: it is not TOML"),
        ("[defaults]\nname = 'a'", "line 2: `name` belongs into each [[mirror]]"),
        ("defaults = 1", "must be a section that begins with [defaults]"),
    ] {
        let problems = parse(text).unwrap_err();
        assert!(problems[0].contains(said), "{text}: {problems:?}");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(parse(&deep).unwrap_err()[0].contains("it is not TOML"));
}

#[test]
fn a_file_that_cannot_be_a_config_is_refused_and_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plainfold.toml");
    let error = || AgentConfig::read(&path).unwrap_err().to_string();
    assert!(error().contains("there is no config"), "{}", error());
    fs::create_dir(&path).unwrap();
    assert!(error().contains("is not a file"), "{}", error());
    fs::remove_dir(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(error().contains("is not a file"), "{}", error());
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"# a\n# b \xff\n").unwrap();
    assert!(error().contains("line 2: it is not valid UTF-8"), "{}", error());
    fs::write(&path, vec![b'#'; 10 << 20]).unwrap();
    assert!(error().contains("is larger than"), "{}", error());
    let secret = "allow_secrets = true\n[[mirror]]\nname='a'\ndirectory='a'\nsource='http://me:hunter2@h/db'";
    fs::write(&path, secret).unwrap();
    let permit = |mode| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).unwrap();
    };
    for mode in [0o644, 0o640, 0o604] {
        permit(mode);
        assert!(error().contains("chmod 600"), "{}", error());
    }
    permit(0o600);
    AgentConfig::read(&path).unwrap();
}

#[test]
fn two_configs_are_compared_by_name_and_only_what_they_mean_counts() {
    let entry = |name: &str, more: &str| {
        format!("[[mirror]]\nname='{name}'\nsource='http://h/{name}'\ndirectory='{name}'\n{more}\n")
    };
    let old = parse(&[entry("a", ""), entry("b", ""), entry("c", ""), entry("d", "")].concat());
    let new = parse(&format!(
        "[defaults]\ntrash = 0\n{}{}{}{}",
        entry("e", ""),
        entry("c", "attachments = true\nschedule = 'live'"),
        entry("b", "trash = 1"),
        entry("a", "")
    ));
    let (old, new) = (old.unwrap(), new.unwrap());
    let change = difference(&old, &new);
    let names =
        |names: &[MirrorName]| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(names(&change.added), "e");
    assert_eq!(names(&change.removed), "d");
    assert_eq!(names(&change.changed), "b");
    assert_eq!(names(&change.unchanged), "c a", "order and written defaults change nothing");
    assert!(!change.api && !change.is_empty());
    assert!(difference(&new, &new).is_empty());
    let other = parse(&format!("[api]\nlisten = []\n{}", entry("a", ""))).unwrap();
    assert!(difference(&old, &other).api);
}

/// The page that documents the config.
const PAGE: &str = include_str!("../../../docs/agent.md");

#[test]
fn every_sample_in_the_documentation_is_a_config() {
    let samples: Vec<_> = PAGE.split("```toml\n").skip(1).collect();
    assert!(samples.len() >= 5, "{}", samples.len());
    for sample in samples {
        let sample = sample.split("```").next().unwrap();
        parse(sample).unwrap_or_else(|problems| panic!("{problems:?} in\n{sample}"));
    }
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    fn names<T>(keys: &[super::value::Key<T>]) -> Vec<&'static str> {
        keys.iter().map(|key| key.name).collect()
    }
    let documented = |heading: &str| {
        let section = PAGE.split(&format!("\n### {heading}\n")).nth(1).expect(heading);
        let rows = section.split("\n### ").next().unwrap().lines();
        let keys = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(documented("Keys of `[[mirror]]` and `[defaults]`"), names(keys::MIRROR));
    assert_eq!(documented("Credentials"), names(keys::CREDENTIALS));
    assert_eq!(documented("Certificates"), names(keys::TLS));
    assert_eq!(documented("Schedules"), names(keys::SCHEDULE));
    assert_eq!(documented("Hooks"), names(super::hooks::HOOKS));
    assert_eq!(documented("Keys of `[api]`"), names(keys::API));
    assert_eq!(documented("Keys of `[alerts]`"), names(super::alerts::ALERTS));
}

#[test]
fn what_is_shown_is_a_config_of_the_same_meaning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plainfold.toml");
    for text in [
        "[[mirror]]\nname='a'\nsource='feed:x'\ndirectory='a'",
        "[api]\nlisten=['/s','[::1]:1']\ntokens='t'\n[defaults]\ntrash=3\nschedule={every='90m'}\n\
         credentials={password_file='p',auth='session'}\n[[mirror]]\nname='a'\nsource='http://me@h'\n\
         directory=\"a \\\"b\"\ncollections=['x*']\nexclude=['xy']\nrevisions=true\nnames='portable'\n\
         mode='0750'\nreserve='1GiB'\ngive_up_after='1m'\ntls={ca_file='c'}\nmax_runs=5\n\
         hooks={before=['/b','x y'],timeout='90s'}\n\
         [[mirror]]\nname='b'\nsource='https://h/b'\ndirectory='b'\ncredentials={token_command='t \"x\"'}\n\
         schedule={cron='0 3 * * *',time_zone='Europe/Berlin'}\n",
    ] {
        fs::write(&path, text).unwrap();
        let shown = ShownConfig::read(&path).unwrap();
        for mirror in &shown.mirrors {
            let keys: Vec<_> = mirror.iter().map(|key| key.key).collect();
            assert_eq!(keys, keys::MIRROR.iter().map(|key| key.name).collect::<Vec<_>>());
        }
        let lines =
            |keys: &[ShownKey]| keys.iter().map(|key| key.line() + "\n").collect::<String>();
        let mut again = format!("[api]\n{}", lines(&shown.api));
        for mirror in &shown.mirrors {
            again += &format!("[[mirror]]\n{}", lines(mirror));
        }
        let config = AgentConfig::read(&path).unwrap();
        assert_eq!(
            AgentConfig::parse(&again, Path::new("/elsewhere/x")).unwrap(),
            config,
            "{again}"
        );
    }
    let shown = ShownConfig::read(&path).unwrap();
    let origin =
        |at: usize, key| shown.mirrors[at].iter().find(|shown| shown.key == key).unwrap().origin;
    assert_eq!(origin(0, "trash"), Origin::Defaults(5));
    assert_eq!(origin(0, "name"), Origin::File(9));
    assert_eq!(origin(1, "deleted"), Origin::Default);
    assert_eq!(origin(1, "credentials"), Origin::File(26));
    assert_eq!(shown.api[0].origin, Origin::File(2));
}

#[tokio::test]
async fn an_entry_becomes_a_mirror_that_runs_without_what_is_excluded() {
    let dir = tempfile::tempdir().unwrap();
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/library.ndjson");
    let config = |more: &str| {
        let text = format!(
            "[[mirror]]\nname='a'\nsource='feed:{library}'\ndirectory='m'\nschedule={{every='1h'}}\n{more}"
        );
        AgentConfig::parse(&text, &dir.path().join("plainfold.toml")).unwrap().mirrors[0].clone()
    };
    let run = async |entry: MirrorEntry| {
        let session = entry.lower().unwrap().start().await.unwrap();
        let outcome = session.join().await;
        assert!(outcome.is_complete() && outcome.errors.is_empty(), "{outcome:?}");
    };
    run(config("exclude = ['loa*', 'members']")).await;
    let holds = |name: &str| dir.path().join("m").join(name).is_dir();
    assert!(holds("books") && !holds("loans") && !holds("members"));
    run(config("")).await;
    assert!(holds("loans") && holds("members"), "nothing of the exclusion is remembered");
    run(config("exclude = ['loans']")).await;
    assert!(holds("loans"), "its copy is kept");
}
