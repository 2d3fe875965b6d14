//! `plainfold mirror`: once, or live until a signal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit, Usage};
use super::progress::{Bars, Shown, When};
use super::{access, logging, service, signals, summary};
use crate::agent::Agent;
use crate::api;
use crate::config::MirrorConfig;
use crate::document::{FolderMode, MaxDelete};
use crate::mirror::names::Codec;
use crate::mirror::{JsonStyle, MirrorError};

/// What `plainfold mirror` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// http(s)://user@host:port/database, or http+unix://user@%2Fpath%2Fsocket/database; without
    /// /database, or with a path that ends in /, every database of the server; feed:FILE.ndjson for a recorded feed, feed:- for one on standard input
    source: String,

    /// The mirror's directory: a mirror, or empty, or new
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Go on after catching up, and follow the source until SIGINT or SIGTERM
    #[arg(long)]
    live: bool,

    /// Which collections, as names or globs; '' resets to the default, all but those starting with
    /// `_`. Remembered. If only names are given, no admin account is needed
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    collections: Option<Vec<String>>,

    /// Exit with 0 even if a name or a glob matches nothing, the source is empty, or a database
    /// that was followed before has vanished
    #[arg(long)]
    allow_empty: bool,

    /// Whether attachments are mirrored, or only the stubs in the documents that name them.
    /// Remembered; `true` in a new mirror
    #[arg(long, value_name = "BOOL")]
    attachments: Option<bool>,

    /// Keep the losing revisions of conflicts too, and the history of every revision. Remembered;
    /// `false` in a new mirror
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    revisions: Option<bool>,

    /// What happens to documents that the source deletes. Remembered; `remove` in a new mirror
    #[arg(long, value_enum)]
    deleted: Option<Deleted>,

    /// How documents are written from now on. Remembered; `as-sent` in a new mirror
    #[arg(long, value_enum)]
    json: Option<Json>,

    /// Progress bars [auto: on a terminal]
    #[arg(long, value_enum, default_value = "auto")]
    progress: When,

    /// Where this process answers `tail` and `status` [default: a socket inside the mirror]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    #[command(flatten)]
    access: access::Options,

    /// Names of folders in a new mirror: `portable` for file systems that fold case
    #[arg(long, value_enum)]
    names: Option<Names>,

    /// Give up after the given number of seconds without any progress; 0 is never [default: 30; never with
    /// --live]
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u64>,

    /// Hold deletions back where one catch-up, or an hour of following, brings more than this share
    /// of a collection and more than this many documents; `off` never does. Remembered; `30%,50` in a
    /// new mirror
    #[arg(long, value_name = "SHARE%,COUNT")]
    max_delete: Option<MaxDelete>,

    /// End the catch-up of a recorded feed after this number of rows that cannot be read; 0 is no
    /// limit. Everything before is mirrored, and the next run continues there
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_failures: u64,

    /// Keep deleted documents in DIR/.plainfold/trash for the given number of days; 0 keeps none.
    /// Remembered; 0 in a new mirror
    #[arg(long, value_name = "DAYS")]
    trash: Option<u32>,

    /// Keep this much of DIR's file system free, for example `1GiB`; 0 keeps nothing free.
    /// Remembered; 0 in a new mirror
    #[arg(long, value_name = "SIZE")]
    reserve: Option<ByteSize>,

    /// Who may read the mirror: the mode of its folders, in octal. Files get the same mode without
    /// execution. Remembered, and applied to what is written from now on; 0700 in a new mirror
    #[arg(long, value_name = "MODE", overrides_with = "mode")]
    mode: Option<FolderMode>,

    /// Require an existing mirror and create none: use it if DIR is a file system that may not be
    /// mounted
    #[arg(long, conflicts_with = "adopt")]
    existing: bool,

    /// Allow the given options to discard data, such as conflicts with --revisions=false
    #[arg(long)]
    discard: bool,

    /// Make DIR a mirror although it has no .plainfold/format.json, for a copy of a mirror's tree.
    /// A full scan compares it with SOURCE
    #[arg(long)]
    adopt: bool,

    /// Follow SOURCE although this mirror followed another one: it has moved. Everything is
    /// compared, and what SOURCE does not hold is removed
    #[arg(long)]
    source_moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Deleted {
    /// Their folders are removed
    Remove,
    /// Their folders stay, and hold the tombstone
    Keep,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Json {
    /// Byte for byte as the source sent them
    AsSent,
    /// Laid out for people; numbers and the order of keys unchanged
    Pretty,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Names {
    Native,
    Portable,
}

impl Options {
    /// The mirror.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The mode that was named.
    pub fn mode(&self) -> Option<FolderMode> {
        self.mode
    }
}

/// Mirrors.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress);
    logging.start(bars.as_ref().map(Bars::lines))?;
    let config = lower(&options)?;
    let live = config.is_live();
    let socket = options.socket.clone();
    let signalled = signals::catch()?;
    let agent = config.start().await?;
    tracing::info!("mirroring into {}", options.directory.display());
    let (server, closing) = serve(&agent, socket).await?;
    let watcher = agent.watcher();
    let companions = CancellationToken::new();
    let drawing = bars.map(|bars| {
        let watcher = watcher.clone();
        let look = move || {
            let collections = watcher.status().collections;
            collections.iter().map(|one| Shown::of_pipeline(&one.report)).collect()
        };
        tokio::spawn(bars.draw(look, companions.clone()))
    });
    let notifying = tokio::spawn(service::notify(watcher, live, companions.clone()));
    let stop = agent.canceller();
    let on_signal = signalled.clone();
    let stopping = tokio::spawn(async move {
        on_signal.cancelled().await;
        service::stopping();
        stop.cancel();
    });
    let outcome = agent.join().await;
    stopping.abort();
    companions.cancel();
    closing.cancel();
    // These only end; whatever they might have to say has been said.
    let _ended = notifying.await;
    if let Some(drawing) = drawing {
        let _ended = drawing.await;
    }
    let _ended = server.await;
    let told = signalled.is_cancelled();
    let printed = summary::print(&outcome, told, logging.is_json());
    let code = exit::of_outcome(&outcome, live, told);
    // An error of the mirror takes precedence over an error of the output.
    if code == Exit::Done {
        printed?;
    }
    Ok(code)
}

fn lower(options: &Options) -> anyhow::Result<MirrorConfig> {
    let mut config = MirrorConfig::new(&options.source, &options.directory)?
        .live(options.live)
        .source_moved(options.source_moved)
        .allow_empty(options.allow_empty)
        .discard(options.discard)
        .adopt(options.adopt)
        .existing(options.existing)
        .max_failures((options.max_failures > 0).then_some(options.max_failures));
    if let Some(globs) = &options.collections {
        // An empty glob selects nothing by itself: alone, it asks for the default.
        let globs: Vec<&String> = globs.iter().filter(|glob| !glob.is_empty()).collect();
        config = config.collections(&globs)?;
    }
    if let Some(attachments) = options.attachments {
        config = config.attachments(attachments);
    }
    if let Some(revisions) = options.revisions {
        config = config.revisions(revisions)?;
    }
    if let Some(deleted) = options.deleted {
        config = config.keep_deleted(deleted == Deleted::Keep);
    }
    if let Some(json) = options.json {
        config = config.json(match json {
            Json::AsSent => JsonStyle::AsSent,
            Json::Pretty => JsonStyle::Pretty,
        });
    }
    if let Some(MaxDelete(limit)) = options.max_delete {
        config = config.max_delete(limit);
    }
    if let Some(days) = options.trash {
        config = config.trash(days);
    }
    if let Some(size) = options.reserve {
        config = config.reserve(size.as_u64());
    }
    if let Some(mode) = options.mode {
        config = config.mode(mode);
    }
    if let Some(names) = options.names {
        config = config.names(match names {
            Names::Native => Codec::Native,
            Names::Portable => Codec::Portable,
        });
    }
    if let Some(seconds) = options.give_up_after {
        config = config.give_up_after((seconds > 0).then(|| Duration::from_secs(seconds)));
    }
    let access = options.access.lower(&options.source, access::Side::Source)?;
    Ok(config.access(access)?)
}

/// Answers `tail` and `status` until the token that comes back is cancelled.
async fn serve(
    agent: &Agent,
    socket: Option<PathBuf>,
) -> anyhow::Result<(tokio::task::JoinHandle<()>, CancellationToken)> {
    let is_named = socket.is_some();
    let path = match socket {
        Some(path) => std::path::absolute(path)?,
        None => agent.socket_path(),
    };
    let listener = api::socket::bind(&path).await.map_err(|error| match is_named {
        true => {
            let text = format!("the socket {} cannot be used: {error}", path.display());
            anyhow::Error::from(Usage(text))
        }
        // The mirror's own: something else stands in its place, or its disk fails.
        false => MirrorError::io("bind the socket", &path, error).into(),
    })?;
    agent.announce(&path)?;
    let closing = CancellationToken::new();
    let closed = closing.clone();
    let watcher = agent.watcher();
    let server = tokio::spawn(async move {
        if let Err(error) = api::serve(listener, watcher, closed.cancelled_owned()).await {
            tracing::error!("`tail` and `status` are not answered any more: {error}");
        }
        // A path that is gone already is what we want.
        let _gone = std::fs::remove_file(path);
    });
    Ok((server, closing))
}
