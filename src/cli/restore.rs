//! `plainfold restore`: writes a mirror into a server, or into a feed.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use indicatif::HumanBytes;

use super::exit::{self, Exit, Usage};
use super::help::{COPY, OUTPUT, SAFETY};
use super::output::{Lines, Stream, many};
use super::progress::{Bars, When};
use super::shown::Shown;
use super::verify::ReportFormat;
use super::{access, compare, logging, signals, undelete};
use crate::archive;
use crate::config::{self, Access, Endpoint};
use crate::document::{Pattern, Selection};
use crate::restore::{self, Control, CouchTarget, FeedTarget, OnExisting, Restore, RestoreError};

/// The number of failures that text names; JSON names more.
const NAMED: usize = 20;

/// What `plainfold restore` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory or its name in the config, or a directory of RxDB's backup plugin
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// A server, a database, or a recorded feed.
    ///
    /// http(s)://user@host:port is a server: each collection goes into the database of the same
    /// name. With /database, it is one database, into which the one selected collection goes.
    /// http+unix://user@%2Fpath%2Fsocket is a server on a Unix socket. feed:FILE is a recorded
    /// feed; feed:- is one on standard output.
    target: String,

    /// Restore only these collections, by name or glob.
    ///
    /// By default, all collections are restored except those whose names begin with `_`.
    #[arg(long, value_name = "GLOB,…", value_delimiter = ',', help_heading = COPY)]
    collections: Vec<String>,

    /// Restore only the document with this id, or those whose id matches this glob
    #[arg(long, value_name = "GLOB", help_heading = COPY)]
    ids: Option<String>,

    /// Give a collection another name at the target.
    ///
    /// It may be given more than once. NEW alone is for the one selected collection.
    #[arg(long = "as", value_name = "[OLD=]NEW,…", value_delimiter = ',', help_heading = COPY)]
    renamed: Vec<String>,

    /// Restore only documents that were deleted at the source.
    ///
    /// These are documents whose deletion is held back, and the newest version of each document in
    /// the trash. A document that exists at the target is not changed.
    #[arg(long, conflicts_with = "on_existing", help_heading = COPY)]
    undelete: bool,

    /// With --undelete: only deletions that were mirrored at this time or later.
    ///
    /// TIME is a date or an RFC 3339 time. The trash records days only.
    #[arg(long, value_name = "TIME", requires = "undelete", help_heading = COPY)]
    since: Option<String>,

    /// Also write the documents of `_replicator`, which starts their replications
    #[arg(long, help_heading = COPY)]
    with_replications: bool,

    /// Print what would be done, and write nothing
    #[arg(long, help_heading = SAFETY)]
    dry_run: bool,

    /// What is done if the target holds other documents, other revisions, or another security
    /// object
    #[arg(long, value_enum, value_name = "WHAT", default_value = "refuse", help_heading = SAFETY)]
    on_existing: Existing,

    /// Restore unchecked files as they are.
    ///
    /// A file is unchecked if it has no checksum beside it, and no inventory lists it.
    #[arg(long, help_heading = SAFETY)]
    accept_unchecked: bool,

    /// Exit with 0 even if there is nothing to restore, or a name or a glob matches nothing
    #[arg(long, help_heading = SAFETY)]
    allow_empty: bool,

    #[command(flatten)]
    access: access::Options,

    /// How the report is printed
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,

    /// When progress bars are shown; `auto` means on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    progress: When,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Existing {
    /// End with exit code 2, and write nothing
    Refuse,
    /// Leave the target's documents and its security object as they are
    Skip,
    /// Replace them with those of the mirror
    Overwrite,
}

/// Restores.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress).filter(|_| !logging.is_quiet());
    logging.start(bars.as_ref().map(Bars::footer))?;
    let mut lowered = lower(&options)?;
    let since = options.since.as_deref().map(undelete::since).transpose()?;
    if options.undelete {
        if config::feed(&options.target).is_some() {
            let what = "--undelete needs a server as TARGET, because a feed holds no tombstones";
            return Err(Usage(what.to_owned()).into());
        }
        lowered.undelete = Some(undelete::find(&options.directory, since).await?);
    }
    let access = options.access.lower(&options.target, access::ServerRole::Target)?;
    let control = Control { stop: signals::catch()?, ..Control::default() };
    let drawing = bars.map(|bars| {
        let progress = control.progress.subscribe();
        let look = move || progress.borrow().iter().map(Shown::of_restore).collect();
        bars.start(look)
    });
    let outcome = put_back(&options, lowered, access, control).await;
    if let Some(drawing) = drawing {
        drawing.end().await;
    }
    let outcome = outcome?;
    let text = match options.format {
        ReportFormat::Json => Lines::pretty(&outcome)?,
        ReportFormat::Text => text(&outcome, config::feed(&options.target).is_some()),
    };
    // A feed on standard output must not be mixed with the report.
    let is_stdout = config::feed(&options.target) == Some("-");
    let stream = if is_stdout { Stream::Stderr } else { Stream::Stdout };
    let empty = outcome.is_empty() && !options.allow_empty;
    let succeeded = !outcome.interrupted && outcome.failed == 0 && !empty;
    if !(logging.is_quiet() && succeeded && options.format == ReportFormat::Text) {
        stream.report("the report", &text)?;
    }
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
) -> anyhow::Result<restore::Outcome> {
    Ok(match Endpoint::of_target(&options.target, access).await? {
        Endpoint::Feed(path) => {
            let target = FeedTarget::new(path, lowered.on_existing)?;
            run_with(&options.directory, target, lowered, control).await?
        }
        Endpoint::Server(client, database) => {
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
) -> Result<restore::Outcome, RestoreError> {
    let archive = archive::open(directory)?;
    Restore::new(target, options).controlled(control).run(archive).await
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

fn text(outcome: &restore::Outcome, to_feed: bool) -> Lines {
    let mut text = Lines::default();
    for failure in outcome.failures.iter().take(NAMED) {
        text.push(&format!("not restored: {}: {}", failure.path, failure.reason));
    }
    let named = outcome.failures.len().min(NAMED) as u64;
    if outcome.failed > named {
        let more = outcome.failed - named;
        text.push(&format!("not restored: {more} more; --format json names them"));
    }
    let several = outcome.collections.len() > 1;
    let mut total = restore::Counts::default();
    for report in &outcome.collections {
        let name = match report.collection == report.renamed {
            true => report.collection.clone(),
            false => format!("{} as {}", report.collection, report.renamed),
        };
        for note in notes(report, to_feed) {
            text.push(&format!("{name}: {note}"));
        }
        total += report.counts;
        if report.refused {
            text.push(&format!("{name}: not restored: the whole collection"));
            continue;
        }
        let done = done(&report.counts, report.security, outcome.dry_run);
        let failed = failed(report.problems, 0);
        text.push(&format!("{name}: {}{done}", failed.map_or(String::new(), |text| text + ", ")));
    }
    let refused = || outcome.collections.iter().filter(|report| report.refused);
    let of_refused: u64 = refused().map(|report| report.problems).sum();
    let failed = failed(outcome.failed.saturating_sub(of_refused), refused().count() as u64);
    if several || (outcome.collections.is_empty() && failed.is_some()) {
        let word = failed.unwrap_or_else(|| "total".to_owned());
        text.push(&format!("{word}: {}", done(&total, false, outcome.dry_run)));
    }
    if outcome.interrupted {
        text.push(match outcome.dry_run || to_feed {
            true => "interrupted: the next run starts from the beginning",
            false => "interrupted: the next run restores what the target lacks",
        });
    }
    text
}

/// The number of documents that were not restored, and of whole collections, if there are any.
fn failed(documents: u64, collections: u64) -> Option<String> {
    let all = [(documents, "document"), (collections, "collection")];
    let failed = all.into_iter().filter(|(count, _)| *count > 0);
    let failed: Vec<_> =
        failed.map(|(count, what)| format!("{} failed", many(count, what))).collect();
    (!failed.is_empty()).then(|| failed.join(", "))
}

/// What was restored of one collection, or of all.
fn done(counts: &restore::Counts, security: bool, dry_run: bool) -> String {
    let verb = if dry_run { "would be " } else { "" };
    let mut text = format!(
        "{} {verb}created, {} replaced, {} skipped, ",
        many(counts.create, "document"),
        counts.replace,
        counts.skip,
    );
    let beside = [(counts.tombstones, "tombstone"), (counts.conflicts, "losing revision")];
    for (count, what) in beside.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("{}, ", many(count, what)));
    }
    if security {
        text.push_str("its security object, ");
    }
    text + &HumanBytes(counts.bytes).to_string()
}

/// What was left out on purpose, and how to restore it.
fn notes(report: &restore::Report, to_feed: bool) -> Vec<String> {
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
