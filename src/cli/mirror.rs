//! `plainfold mirror`: once, or live until a signal.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit, Usage};
use super::progress::{Bars, Shown, When};
use super::{logging, password, service, signals, summary};
use crate::agent::{Agent, DeletionLimit};
use crate::api;
use crate::config::MirrorConfig;
use crate::mirror::JsonStyle;
use crate::mirror::names::Codec;

/// Where the password may come from, so that it stands in no process list.
pub const PASSWORD_VARIABLE: &str = "PLAINFOLD_SOURCE_PASSWORD";

/// What `plainfold mirror` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// http(s)://user@host:port/database, or http+unix://user@%2Fpath%2Fsocket/database; without
    /// /database, every database of the server; feed:FILE.ndjson for a recorded feed, feed:- for one on standard input
    source: String,

    /// The mirror's directory: a mirror, or empty, or new
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Go on after catching up, and follow the source until SIGINT or SIGTERM
    #[arg(long)]
    live: bool,

    /// Which collections, as globs [default: all but those starting with `_`]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    collections: Vec<String>,

    /// Whether attachments are mirrored, or only the stubs in the documents that name them
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    attachments: bool,

    /// Keep the losing branches of conflicts too, and the history of every revision
    #[arg(long)]
    revisions: bool,

    /// What becomes of documents that the source deletes
    #[arg(long, value_enum, default_value = "remove")]
    deleted: Deleted,

    /// How documents are written from now on
    #[arg(long, value_enum, default_value = "as-sent")]
    json: Json,

    /// Progress bars [auto: on a terminal]
    #[arg(long, value_enum, default_value = "auto")]
    progress: When,

    /// Where this process answers `tail` and `status` [default: a socket inside the mirror]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// A file that holds the password of the user named in SOURCE. PLAINFOLD_SOURCE_PASSWORD may
    /// hold the password itself
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// Names of folders in a new mirror: `portable` for file systems that fold case
    #[arg(long, value_enum)]
    names: Option<Names>,

    /// Give up after so many seconds without any progress; 0 is never [default: 30; never with
    /// --live]
    #[arg(long, value_name = "SECONDS")]
    give_up_after: Option<u64>,

    /// Hold deletions back where one catch-up, or an hour of following, brings more than this share
    /// of a collection and more than this many documents; `off` never does
    #[arg(long, value_name = "SHARE%,COUNT", default_value = "30%,50", value_parser = limit)]
    max_delete: Limit,

    /// Keep deleted documents for so many days in DIR/.plainfold/trash; 0 is not at all
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    trash: u32,

    /// Leave so much of DIR's file system free, as in `1GiB`; 0 is nothing
    #[arg(long, value_name = "SIZE", default_value = "0")]
    reserve: ByteSize,

    /// Follow SOURCE although this mirror followed another one: it has moved. Everything is
    /// compared, and what SOURCE does not hold is removed
    #[arg(long)]
    source_moved: bool,
}

/// How much may be deleted at a time; `None` is all.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<DeletionLimit>);

fn limit(text: &str) -> Result<Limit, String> {
    if text == "off" {
        return Ok(Limit(None));
    }
    let (share, count) = text.split_once(',').unwrap_or_default();
    let percent = share.strip_suffix('%').and_then(|share| share.parse().ok());
    match (percent.filter(|percent| *percent <= 100), count.parse()) {
        (Some(percent), Ok(documents)) => Ok(Limit(Some(DeletionLimit { percent, documents }))),
        _ => Err("give a share and a count, as in `30%,50`, or `off`".to_owned()),
    }
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
    // What went wrong with the mirror weighs more than that it could not be said.
    if code == Exit::Done {
        printed?;
    }
    Ok(code)
}

fn lower(options: &Options) -> anyhow::Result<MirrorConfig> {
    let mut config = MirrorConfig::new(&options.source, &options.directory)?
        .live(options.live)
        .collections(&options.collections)?
        .attachments(options.attachments)
        .revisions(options.revisions)?
        .keep_deleted(options.deleted == Deleted::Keep)
        .source_moved(options.source_moved)
        .max_delete(options.max_delete.0)
        .trash(options.trash)
        .reserve(options.reserve.as_u64())
        .json(match options.json {
            Json::AsSent => JsonStyle::AsSent,
            Json::Pretty => JsonStyle::Pretty,
        });
    if let Some(names) = options.names {
        config = config.names(match names {
            Names::Native => Codec::Native,
            Names::Portable => Codec::Portable,
        });
    }
    if let Some(seconds) = options.give_up_after {
        config = config.give_up_after((seconds > 0).then(|| Duration::from_secs(seconds)));
    }
    if let Some(password) = password::read(options.password_file.as_deref(), PASSWORD_VARIABLE)? {
        config = config.password(password)?;
    }
    Ok(config)
}

/// Answers `tail` and `status` until the token that comes back is cancelled.
async fn serve(
    agent: &Agent,
    socket: Option<PathBuf>,
) -> anyhow::Result<(tokio::task::JoinHandle<()>, CancellationToken)> {
    let path = match socket {
        Some(path) => std::path::absolute(path)?,
        None => agent.socket_path(),
    };
    let listener = api::socket::bind(&path)
        .await
        .map_err(|error| Usage(format!("the socket {} cannot be used: {error}", path.display())))?;
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
