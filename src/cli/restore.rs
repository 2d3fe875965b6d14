//! `plainfold restore`: a mirror back into a server, or into a feed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::HumanBytes;
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit, Usage};
use super::output::{Lines, Stream, many};
use super::progress::{Bars, Shown, When};
use super::{access, compare, logging, signals, undelete};
use crate::client::couchdb::{Address, Client, ClientOptions};
use crate::config::{self, Access, ConfigError};
use crate::document::{CollectionName, Pattern, Selection};
use crate::mirror::read::Tree;
use crate::restore::{
    self, Control, CouchTarget, FeedTarget, OnExisting, Outcome, Report, Restore, RestoreError,
};

/// So many failures are named in text; JSON names more.
const NAMED: usize = 20;

/// What `plainfold restore` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory, or one that RxDB's backup plugin wrote
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// http(s)://user@host:port or http+unix://user@%2Fpath%2Fsocket, a server: every collection
    /// goes into a database of its name; with /database, the one selected collection goes there;
    /// feed:FILE.ndjson for a feed in a
    /// file, feed:- for one on standard output
    target: String,

    /// Which collections, as names or globs [default: all but those starting with `_`]
    #[arg(long, value_name = "GLOB", value_delimiter = ',')]
    collections: Vec<String>,

    /// Only the document with this id, or those whose id matches this glob
    #[arg(long, value_name = "GLOB")]
    ids: Option<String>,

    /// Exit with 0 although there is nothing to restore, or a name or a glob matches nothing
    #[arg(long)]
    allow_empty: bool,

    /// Another name for a collection at the target; may be given more than once. NEW alone is for
    /// the one selected collection
    #[arg(long = "as", value_name = "[OLD=]NEW", value_delimiter = ',')]
    renamed: Vec<String>,

    /// Restore unchecked files as they are: files that have no checksum beside them and none in an
    /// inventory
    #[arg(long)]
    accept_unchecked: bool,

    /// Print what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// When the target holds other documents, other revisions, or another security object: refuse, and
    /// write nothing; skip what is there; or overwrite it with what the mirror holds
    #[arg(long, value_enum, default_value = "refuse")]
    on_existing: Existing,

    /// Restore only what was deleted at the source: documents whose deletion is held back, and the
    /// newest version of each document in the trash. A document that exists at the target is not
    /// changed
    #[arg(long, conflicts_with = "on_existing")]
    undelete: bool,

    /// With --undelete: only deletions that were mirrored at this time or later, a date or an RFC
    /// 3339 time. The trash records days only
    #[arg(long, value_name = "TIME", requires = "undelete")]
    since: Option<String>,

    /// Also write the documents of `_replicator`, which starts the replications that they describe
    #[arg(long)]
    with_replications: bool,

    /// Text, or JSON
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    /// Progress bars [auto: on a terminal]
    #[arg(long, value_enum, default_value = "auto")]
    progress: When,

    #[command(flatten)]
    access: access::Options,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Existing {
    Refuse,
    Skip,
    Overwrite,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Puts a mirror back.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress);
    logging.start(bars.as_ref().map(Bars::lines))?;
    let mut lowered = lower(&options)?;
    let since = options.since.as_deref().map(undelete::since).transpose()?;
    if options.undelete {
        if config::feed(&options.target).is_some() {
            let what = "--undelete needs a server as TARGET, because a feed holds no tombstones";
            return Err(Usage(what.to_owned()).into());
        }
        lowered.undelete = Some(undelete::find(&options.directory, since).await?);
    }
    let access = options.access.lower(&options.target, access::Side::Target)?;
    let control = Control { stop: signals::catch()?, ..Control::default() };
    let companions = CancellationToken::new();
    let drawing = bars.map(|bars| {
        let progress = control.progress.subscribe();
        let look = move || progress.borrow().iter().map(Shown::of_restore).collect();
        tokio::spawn(bars.draw(look, companions.clone()))
    });
    let outcome = put_back(&options, lowered, access, control).await;
    companions.cancel();
    if let Some(drawing) = drawing {
        // It only ends; whatever it might have to say has been said.
        let _ended = drawing.await;
    }
    let outcome = outcome?;
    let text = match options.format {
        Format::Json => Lines::pretty(&outcome)?,
        Format::Text => text(&outcome, config::feed(&options.target).is_some()),
    };
    // A feed on standard output must not be mixed with the report.
    let stream =
        if config::feed(&options.target) == Some("-") { Stream::Stderr } else { Stream::Stdout };
    stream.report("the report", &text)?;
    let empty = outcome.is_empty() && !options.allow_empty;
    if empty {
        exit::say(&match &options.ids {
            Some(ids) => {
                format!(
                    "nothing to restore: no document of the selected collections matches `{ids}`"
                )
            }
            None if options.undelete => {
                "nothing to restore: no deletion is held back, and the trash \
                                         holds no document that is deleted at the target. If the \
                                         mirror has not followed the deletion yet, run `plainfold \
                                         mirror` first"
                    .to_owned()
            }
            None => "nothing to restore: the selected collections hold no document".to_owned(),
        });
    }
    Ok(match (outcome.interrupted, outcome.failed) {
        (false, 0) if empty => Exit::DocumentsFailed,
        (true, _) => Exit::Interrupted,
        (false, 0) => Exit::Done,
        (false, _) => Exit::DocumentsFailed,
    })
}

async fn put_back(
    options: &Options,
    mut lowered: restore::Options,
    access: Access,
    control: Control,
) -> anyhow::Result<Outcome> {
    let path = config::feed(&options.target).filter(|path| !path.is_empty());
    Ok(match path.filter(|path| !Address::is_url_like(path)) {
        Some(path) => {
            let path = (path != "-").then(|| PathBuf::from(path));
            let target = FeedTarget::new(path, lowered.on_existing)?;
            run_with(&options.directory, target, lowered, control).await?
        }
        None => {
            let (client, database) = server(&options.target, access).await?;
            if let Some(database) = database {
                if !options.renamed.is_empty() {
                    let what = "--as and a database in TARGET both name one: give one of them";
                    return Err(Usage(what.to_owned()).into());
                }
                lowered.only_as = Some(database);
            }
            run_with(&options.directory, CouchTarget::new(client), lowered, control).await?
        }
    })
}

async fn run_with<T: restore::Target + 'static>(
    directory: &Path,
    target: T,
    options: restore::Options,
    control: Control,
) -> Result<Outcome, RestoreError> {
    let tree = Tree::open(directory)?;
    Restore::new(target, options).controlled(control).run(tree).await
}

fn lower(options: &Options) -> anyhow::Result<restore::Options> {
    let collections =
        Selection::new(&options.collections).map_err(|error| Usage(error.to_string()))?;
    let ids = options.ids.as_deref().map(Pattern::new).transpose();
    let ids = ids.map_err(|error| Usage(error.to_string()))?;
    let (renamed, only_as) = compare::renames(&options.renamed)?;
    let on_existing = match options.on_existing {
        Existing::Refuse => OnExisting::Refuse,
        Existing::Skip => OnExisting::Skip,
        Existing::Overwrite => OnExisting::Overwrite,
    };
    Ok(restore::Options {
        collections,
        ids,
        renamed,
        only_as,
        on_existing,
        undelete: None,
        with_replications: options.with_replications,
        allow_empty: options.allow_empty,
        dry_run: options.dry_run,
        accept_unchecked: options.accept_unchecked,
    })
}

async fn server(target: &str, access: Access) -> anyhow::Result<(Client, Option<CollectionName>)> {
    if !Address::is_meant(target) {
        let given = Address::hidden(target);
        let meant = config::meant(target).map(|meant| format!(" ({meant})")).unwrap_or_default();
        return Err(Usage(format!(
            "`{given}` is not a target{meant}: a target is http(s)://host:port or \
             http+unix://%2Fpath%2Fsocket, the same with /database, feed:FILE, or feed:- for standard \
             output"
        ))
        .into());
    }
    let given = Address::parse(target)
        .map_err(|error| Usage(format!("the target's URL cannot be used: {error}")))?;
    let credentials = access.credentials(given.credentials).map_err(ConfigError::from)?;
    let client = |address| {
        let (credentials, tls) = (credentials.clone(), access.tls.clone());
        let options =
            ClientOptions { credentials, tls, side: access.side, ..ClientOptions::default() };
        Client::new(address, options).map_err(|error| Usage(error.to_string()))
    };
    // Only the server can tell whether a path that ends in a slash is a proxy's.
    if let Some(below) = given.below {
        let below = client(below)?;
        if below.is_server().await {
            return Ok((below, None));
        }
    }
    Ok((client(given.address)?, given.database))
}

fn text(outcome: &Outcome, to_feed: bool) -> Lines {
    let mut text = Lines::default();
    for failure in outcome.failures.iter().take(NAMED) {
        text.push(&format!("not restored: {}: {}", failure.path, failure.reason));
    }
    let named = outcome.failures.len().min(NAMED) as u64;
    if outcome.failed > named {
        let more = outcome.failed - named;
        text.push(&format!("not restored: {more} more; --format json names them"));
    }
    let verb = if outcome.dry_run { "would be " } else { "" };
    for report in &outcome.collections {
        let name = match report.collection == report.renamed {
            true => report.collection.clone(),
            false => format!("{} as {}", report.collection, report.renamed),
        };
        text.push(&format!(
            "{name}: {} {verb}created, {} replaced, {} skipped, {}{}, {}",
            many(report.counts.create, "document"),
            report.counts.replace,
            report.counts.skip,
            beside(report),
            HumanBytes(report.counts.bytes),
            many(report.problems, "problem"),
        ));
        for note in notes(report, to_feed) {
            text.push(&format!("{name}: {note}"));
        }
    }
    if outcome.interrupted {
        text.push(match outcome.dry_run || to_feed {
            true => "interrupted: the next run starts from the beginning",
            false => "interrupted: the next run restores what the target lacks",
        });
    }
    text
}

/// What was left out on purpose, and how to restore it.
fn notes(report: &Report, to_feed: bool) -> Vec<String> {
    let counts = report.counts;
    let plural = |count, what: &str| {
        let (end, verb) = if count == 1 { ("", "was") } else { ("s", "were") };
        format!("{count} {what}{end} {verb} left out")
    };
    let mut notes = Vec::new();
    if report.security_kept {
        let what = "its security object differs from the mirror's and was left as it is";
        notes.push(what.to_owned());
    }
    if counts.left_out > 0 {
        let why = match to_feed {
            true => "a feed holds winners only",
            false => "--undelete brings back winners only",
        };
        notes.push(format!("{}: {why}", plural(counts.left_out, "losing revision")));
    }
    if counts.replications > 0 {
        notes.push(format!(
            "{}, because the target would start to replicate: give --with-replications to restore \
             them",
            plural(counts.replications, "replication document")
        ));
    }
    if counts.deleted_there > 0 {
        let (end, verb) = if counts.deleted_there == 1 { ("", "is") } else { ("s", "are") };
        notes.push(format!(
            "{} document{end} {verb} deleted at the target and stayed deleted. To bring back what was \
             deleted by mistake, give --undelete; to restore all as the mirror holds it, \
             --on-existing overwrite",
            counts.deleted_there
        ));
    }
    notes
}

/// The number of histories, conflicts and tombstones that were restored.
fn beside(report: &Report) -> String {
    let mut text = String::new();
    let counts =
        [(report.counts.tombstones, "tombstone"), (report.counts.conflicts, "losing revision")];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        let end = if count == 1 { "" } else { "s" };
        text.push_str(&format!("{count} {what}{end}, "));
    }
    if report.security {
        text.push_str("its security object, ");
    }
    text
}
