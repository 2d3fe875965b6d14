//! `plainfold config init`: a config with comments that can be used as it is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::DEFAULT;
use crate::cli::exit::{Exit, Usage};
use crate::cli::help::COPY;
use crate::cli::output::{Lines, Stream, create_folder, write_new};
use crate::client::couchdb::Address;
use crate::config;
use crate::config::file::{AgentConfig, FileError};
use crate::document::{BadMirrorName, MirrorName, plain};

/// The feed that is mirrored if no source is given, with the files of its attachments, and where they are
/// written beside the config.
const SAMPLE: [(&str, &[u8]); 3] = [
    (SAMPLE_FEED, include_bytes!("../../../fixtures/library.ndjson")),
    ("sample/files/floor-plan.png", include_bytes!("../../../fixtures/files/floor-plan.png")),
    (
        "sample/files/reading-room rules.pdf",
        include_bytes!("../../../fixtures/files/reading-room rules.pdf"),
    ),
];
const SAMPLE_FEED: &str = "sample/library.ndjson";

/// Where mirrors are whose config is in the default place.
const STATE: &str = "/var/lib/plainfold";

/// The name of a mirror whose source has no part that could be one.
const MIRROR: &str = "mirror";

/// The text of the config.
const TEMPLATE: &str = r##"# The mirrors of this machine. docs/agent.md explains every key.
# After a change, `plainfold config check` says what works and what does not.

#[api]
# Where commands, other programs and browsers reach the agent. As long as there is no token, every user of this
# machine can give all orders at 127.0.0.1; `plainfold token add NAME --role admin` ends that. An address that
# other machines reach needs a token. docs/api.md explains it.
#listen = ["/run/plainfold/plainfold.sock", "127.0.0.1:5990"]

# What is called when something is wrong with a mirror; docs/monitoring.md explains it.
#[alerts]
#command = ["/usr/local/bin/page-me"]
#heartbeat = { url = "https://example.com/ping", every = "60s" }

# Every mirror has these, unless its own section says otherwise.
[defaults]
# Hold further deletions back if one run, or one hour of following, would delete more than this
# share of a collection and more than this number of documents.
max_delete = "30%,50"
# Keep deleted documents in the trash for this number of days; 0 keeps none.
trash = 0
# Leave this much of the file system free.
#reserve = "1GiB"
# Who can read new mirrors: "0700" is only the user of the agent, "0750" its group too.
#mode = "0750"

# Each mirror has a section like this one.
[[mirror]]
name = @NAME@
# http(s)://user@host:port/database, the same without a database for the whole server, or feed:FILE.
source = @SOURCE@
# A relative path counts from the folder of this file.
directory = @DIRECTORY@
# Where the password of the user in the URL is found. It does not belong in this file.
@CREDENTIALS@
# "live" follows the source. { every = "1h" } and { cron = "0 3 * * *", time_zone = "Europe/Berlin" }
# catch up from time to time.
schedule = "live"
# Every document is verified once in this time, and damaged ones are fetched again if `repair` is true.
#verify = { every = "7d", repair = false }
# Names or globs. Without them, all collections but those whose names begin with `_`.
#collections = ["books", "loans-*"]
#exclude = ["tmp-*"]
# Keep conflicts and histories of revisions too.
#revisions = true
# Keep documents that the source deletes.
#deleted = "keep"
# A program that runs after each catch-up, when the mirror is closed.
#hooks = { after = ["/usr/local/bin/snapshot"] }
"##;

/// What `plainfold config init` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The config file to write. PLAINFOLD_CONFIG may name it too
    #[arg(value_name = "PATH", env = "PLAINFOLD_CONFIG", hide_env = true, default_value = DEFAULT)]
    path: PathBuf,

    /// The source of its mirror: a server, one of its databases, or a recorded feed
    #[arg(long, value_name = "SOURCE", help_heading = COPY)]
    source: Option<String>,

    /// The directory of its mirror; one that does not exist is created when the mirror starts
    #[arg(long, value_name = "DIR", help_heading = COPY)]
    directory: Option<PathBuf>,
}

/// What the mirror of the new config is.
struct Given {
    name: MirrorName,
    source: String,
    directory: String,
    /// The file of the password, if the source names a user.
    password_file: Option<String>,
}

/// Writes it.
pub fn run(options: &Options) -> anyhow::Result<Exit> {
    let path = std::path::absolute(&options.path)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    refuse_existing(&path)?;
    let given = Given::of(options, &path)?;
    let text = given.config();
    AgentConfig::parse(&text, &path).map_err(|error| match error {
        FileError::Wrong { problems, .. } => {
            let all: Vec<_> = problems.into_iter().map(|problem| problem.text).collect();
            Usage(all.join("; "))
        }
        error => Usage(error.to_string()),
    })?;
    create_folder("the config", folder)?;
    if options.source.is_none() {
        for (name, bytes) in SAMPLE {
            let path = folder.join(name);
            if std::fs::read(&path).is_ok_and(|found| found == bytes) {
                continue;
            }
            refuse_existing(&path)?;
            create_folder("the sample", path.parent().unwrap_or(folder))?;
            write_new("the sample", &path, bytes)?;
        }
    }
    write_new("the config", &path, text.as_bytes())?;
    let mut lines = Lines::default();
    let (shown, quoted) = (path.display(), plain::quoted(&path.to_string_lossy()));
    writeln!(lines, "Wrote {shown} with the mirror `{}` of {}", given.name, given.source)?;
    if let Some(file) = &given.password_file {
        writeln!(
            lines,
            "Write the password into {}, alone on one line",
            folder.join(file).display()
        )?;
    }
    writeln!(lines, "Next: plainfold config check --config {quoted}")?;
    Stream::Stdout.report("the result", &lines)?;
    Ok(Exit::Done)
}

fn refuse_existing(path: &Path) -> Result<(), Usage> {
    match path.symlink_metadata() {
        Ok(_) => Err(Usage(format!(
            "{} exists already, and is not overwritten: name another file, or remove it",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}

impl Given {
    fn of(options: &Options, config: &Path) -> Result<Self, Usage> {
        let (source, has_user) = match &options.source {
            None => (format!("feed:{SAMPLE_FEED}"), false),
            Some(source) => source_of(source.trim())?,
        };
        let name = name_of(&source).map_or_else(|| MIRROR.parse(), Ok);
        let name: MirrorName = name.map_err(|bad: BadMirrorName| Usage(bad.to_string()))?;
        let directory = match &options.directory {
            Some(directory) => {
                let absolute = std::path::absolute(directory);
                text_of(&absolute.map_err(|error| Usage(format!("--directory: {error}")))?)?
            }
            None if config == Path::new(DEFAULT) => format!("{STATE}/{name}"),
            None => format!("mirrors/{name}"),
        };
        let password_file = has_user.then(|| format!("{name}.password"));
        Ok(Self { name, source, directory, password_file })
    }

    /// The text of the config.
    fn config(&self) -> String {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let credentials = match &self.password_file {
            Some(file) => format!("credentials = {{ password_file = {} }}", quoted(file)),
            None => "#credentials = { password_file = \"password\" }".to_owned(),
        };
        TEMPLATE
            .replace("@NAME@", &quoted(self.name.as_str()))
            .replace("@CREDENTIALS@", &credentials)
            .replace("@DIRECTORY@", &quoted(&self.directory))
            .replace("@SOURCE@", &quoted(&self.source))
    }
}

/// The source as the config has it, and whether it names a user.
fn source_of(text: &str) -> Result<(String, bool), Usage> {
    if let Some(path) = config::feed(text).filter(|path| !["", "-"].contains(path)) {
        let path =
            std::path::absolute(path).map_err(|error| Usage(format!("--source: {error}")))?;
        return Ok((format!("feed:{}", text_of(&path)?), false));
    }
    let credentials = Address::parse(text).ok().and_then(|given| given.credentials);
    let has_user = credentials.is_some_and(|it| it.user().is_some_and(|user| !user.is_empty()));
    Ok((text.to_owned(), has_user))
}

/// A name for the mirror of a source: its database, its host, or the file of a feed.
fn name_of(source: &str) -> Option<MirrorName> {
    if let Some(path) = config::feed(source) {
        return MirrorName::like(Path::new(path).file_stem()?.to_str()?);
    }
    let given = Address::parse(source).ok()?;
    let host = given.address.to_string();
    let host = host.split("//").nth(1).and_then(|rest| rest.split('/').next());
    let database = given.database.and_then(|name| MirrorName::like(name.as_str()));
    database.or_else(|| MirrorName::like(host?))
}

fn text_of(path: &Path) -> Result<String, Usage> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Usage(format!("{} is not valid UTF-8", path.display())))
}
