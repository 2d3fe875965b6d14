//! `plainfold mirror`: once, or live until a signal.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::exit::{self, Exit, Usage};
use super::help::{CONNECTION, COPY, OUTPUT, SAFETY};
use super::progress::{Bars, When};
use super::shown::Shown;
use super::{access, journal, logging, service, signals, summary};
use crate::api::own::{AnswerError, MirrorAnswers};
use crate::config::file::Period;
use crate::config::{self, MirrorChoices, MirrorConfig};
use crate::document::{FolderMode, MaxDelete};
use crate::mirror::{self, JsonStyle};
use crate::runner::Session;
use crate::tree::names::Codec;

/// The mirror is closed within this time after its run, unless a disk hangs.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// What a source may be.
fn sources() -> String {
    format!("A server, one of its databases, or a recorded feed. {}", config::kinds())
}

/// What `plainfold mirror` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// A server, one of its databases, or a recorded feed
    #[arg(long_help = sources())]
    source: String,

    /// The mirror's directory: a mirror, an empty directory, or one that will be created
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Follow the source after catching up, until SIGINT or SIGTERM
    #[arg(long, help_heading = COPY)]
    live: bool,

    /// Mirror only these collections (databases), by name or glob.
    ///
    /// Remembered. By default, all collections are mirrored except those whose names begin with
    /// `_`; '' resets the option to this. If only names are given, no admin account is needed.
    #[arg(long, value_name = "GLOB,…", value_delimiter = ',', help_heading = COPY)]
    collections: Option<Vec<String>>,

    /// Mirror attachments (`true`), or only the stubs that name them (`false`).
    ///
    /// Remembered; `true` in a new mirror.
    #[arg(long, value_name = "BOOL", hide_possible_values = true, help_heading = COPY)]
    attachments: Option<bool>,

    /// Mirror no attachments, as with --attachments false
    #[arg(long, overrides_with = "attachments", help_heading = COPY)]
    no_attachments: bool,

    /// Keep the losing revisions of conflicts and the history of each revision.
    ///
    /// Remembered; `false` in a new mirror.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = COPY
    )]
    revisions: Option<bool>,

    /// What happens to documents that the source deletes.
    ///
    /// Remembered; `remove` in a new mirror.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = COPY)]
    deleted: Option<Deleted>,

    /// How documents are written from now on.
    ///
    /// Remembered; `as-sent` in a new mirror.
    #[arg(long, value_enum, value_name = "FORM", help_heading = COPY)]
    json: Option<Json>,

    /// How folders are named in a new mirror.
    ///
    /// `portable` is for file systems that ignore case. An existing mirror keeps its codec.
    #[arg(long, value_enum, value_name = "CODEC", help_heading = COPY)]
    names: Option<Names>,

    /// Protect against mass deletion, for example with `30%,50`; `off` is no protection.
    ///
    /// If one run, or one hour of following, would delete more than this share of a collection and
    /// more than this number of documents, further deletions are held back. `plainfold release`
    /// applies them. Remembered; `30%,50` in a new mirror.
    #[arg(long, value_name = "SHARE%,COUNT", help_heading = SAFETY)]
    max_delete: Option<MaxDelete>,

    /// End the catch-up of a recorded feed if more than N rows cannot be read; 0 is no limit.
    ///
    /// Everything before is mirrored, and the next run resumes there.
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = SAFETY)]
    max_failures: u64,

    /// Keep deleted documents in DIR/.plainfold/trash for this number of days.
    ///
    /// Remembered; in a new mirror 0, which keeps none.
    #[arg(long, value_name = "DAYS", help_heading = SAFETY)]
    trash: Option<u32>,

    /// Leave this much of DIR's file system free, for example `1GiB`.
    ///
    /// Remembered; 0 in a new mirror.
    #[arg(long, value_name = "SIZE", help_heading = SAFETY)]
    reserve: Option<ByteSize>,

    /// Who may read the mirror: the mode of its folders, in octal.
    ///
    /// Files get the same mode without execution. The mode applies to files and folders that are
    /// written from now on. Remembered; 0700 in a new mirror.
    #[arg(long, value_name = "MODE", overrides_with = "mode", help_heading = SAFETY)]
    mode: Option<FolderMode>,

    /// Require an existing mirror, and create none.
    ///
    /// Use this option if DIR is on a file system that may not be mounted.
    #[arg(long, conflicts_with = "adopt", help_heading = SAFETY)]
    existing: bool,

    /// Exit with 0 even if nothing is found where something was expected.
    ///
    /// That is: a name or a glob matches nothing, the source is empty, or a database that the
    /// mirror followed has vanished.
    #[arg(long, help_heading = SAFETY)]
    allow_empty: bool,

    /// Allow the given options to discard data, such as conflicts with --revisions=false
    #[arg(long, help_heading = SAFETY)]
    discard: bool,

    /// Make DIR a mirror although it has no .plainfold/format.json.
    ///
    /// Use this option for a copy of a mirror's tree. A full scan compares the copy with SOURCE.
    #[arg(long, help_heading = SAFETY)]
    adopt: bool,

    /// Follow SOURCE although this mirror followed another source.
    ///
    /// Everything is compared, and documents that SOURCE does not hold are removed.
    #[arg(long, help_heading = SAFETY)]
    source_moved: bool,

    /// Take the mirror over although another process holds its lock.
    ///
    /// Use this option if that process is stuck, or runs on a machine that is lost. It can change
    /// nothing in the mirror any more: when it notices, it ends with exit code 6.
    #[arg(long, help_heading = SAFETY)]
    take_over: bool,

    #[command(flatten)]
    access: access::Options,

    /// Give up after this time without progress, for example `90` (seconds) or `5m`; 0 means never.
    ///
    /// The default is 30 s, and never with --live.
    #[arg(long, value_name = "TIME", value_parser = patience, help_heading = CONNECTION)]
    give_up_after: Option<Duration>,

    /// With --live, open at most this number of connections to a server.
    ///
    /// If the server has more databases than fit, those that change are followed, and the others sleep
    /// until they change. At least 4 connections are used.
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = CONNECTION)]
    max_runs: u16,

    /// When progress bars are shown; `auto` means on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    progress: When,

    /// Where this process answers other commands, such as `tail` and `status`.
    ///
    /// The default is a socket in DIR/.plainfold. `tail` and `status` find it by themselves.
    #[arg(long, value_name = "PATH", help_heading = OUTPUT)]
    socket: Option<PathBuf>,
}

/// Reads a number of seconds, or a duration with a unit.
fn patience(text: &str) -> Result<Duration, String> {
    let bad = |_| {
        "give a number of seconds, or a number and a unit, such as `90s`, `15m` or `1h`".to_owned()
    };
    match text.trim().parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => text.parse().map(|Period(patience)| patience).map_err(bad),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Deleted {
    /// Remove their folders
    Remove,
    /// Keep their folders, with the tombstone as deleted.json
    Keep,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Json {
    /// Byte for byte as the source sent them
    AsSent,
    /// Indented for reading; numbers and the order of keys do not change
    Pretty,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Names {
    /// Keep names apart that differ in any byte
    Native,
    /// Use only ASCII, and never differ in case alone
    Portable,
}

impl Options {
    /// Whether attachments are mirrored, if that was said.
    fn attachments(&self) -> Option<bool> {
        if self.no_attachments { Some(false) } else { self.attachments }
    }

    /// What was chosen for the mirror.
    fn chosen(&self) -> MirrorChoices {
        // An empty glob selects nothing by itself: alone, it asks for the default.
        let globs = |globs: &Vec<String>| {
            globs.iter().filter(|glob| !glob.is_empty()).cloned().collect::<Vec<_>>()
        };
        MirrorChoices {
            live: self.live,
            collections: self.collections.as_ref().map(globs),
            exclude: Vec::new(),
            attachments: self.attachments(),
            revisions: self.revisions,
            deleted: self.deleted.map(|deleted| match deleted {
                Deleted::Remove => mirror::Deleted::Remove,
                Deleted::Keep => mirror::Deleted::Keep,
            }),
            json: self.json.map(|json| match json {
                Json::AsSent => JsonStyle::AsSent,
                Json::Pretty => JsonStyle::Pretty,
            }),
            names: self.names.map(|names| match names {
                Names::Native => Codec::Native,
                Names::Portable => Codec::Portable,
            }),
            max_delete: self.max_delete,
            max_failures: self.max_failures,
            trash: self.trash,
            reserve: self.reserve.map(|size| size.as_u64()),
            mode: self.mode,
            existing: self.existing,
            allow_empty: self.allow_empty,
            discard: self.discard,
            adopt: self.adopt,
            source_moved: self.source_moved,
            take_over: self.take_over,
            give_up_after: self.give_up_after,
            max_runs: self.max_runs,
        }
    }

    /// The mode that was named.
    pub fn mode(&self) -> Option<FolderMode> {
        self.mode
    }
}

/// Mirrors.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress).filter(|_| !logging.is_quiet());
    logging.start_with(bars.as_ref().map(Bars::footer), true)?;
    // On a terminal the bars say it.
    let is_told = bars.is_none() || !logging::is_on_terminal();
    let config = lower(&options)?;
    let live = config.is_live();
    let socket = options.socket.clone();
    let signalled = signals::catch()?;
    // It comes before all that may fail in the run.
    let begin = |source: &str| {
        if is_told && !live {
            journal::begin(source, &options.directory);
        }
    };
    let session = config.start_after(begin).await?;
    let answers = serve(&session, socket).await?;
    let watcher = session.watcher();
    let closed = watcher.closed();
    let companions = CancellationToken::new();
    let drawing = bars.map(|bars| {
        let watcher = watcher.clone();
        bars.start(move || watcher.reports().iter().map(Shown::of_pipeline).collect())
    });
    let telling = (is_told && live).then(|| {
        let (watcher, ended) = (watcher.clone(), companions.clone());
        let mirror = options.directory.clone();
        tokio::spawn(async move { journal::keep(watcher, &mirror, ended).await })
    });
    let notifying = tokio::spawn(service::notify(watcher, live, companions.clone()));
    let stop = session.canceller();
    let on_signal = signalled.clone();
    let stopping = tokio::spawn(async move {
        on_signal.cancelled().await;
        service::stopping();
        stop.cancel();
    });
    let outcome = session.join().await;
    stopping.abort();
    companions.cancel();
    // These only end; whatever they might have to say has been said.
    let _ended = notifying.await;
    if let Some(telling) = telling {
        let _ended = telling.await;
    }
    if let Some(drawing) = drawing {
        drawing.end().await;
    }
    answers.end().await;
    // A connection that has ended may keep the mirror open a moment longer, and then the process would end
    // before the mirror is tidied.
    let _late = tokio::time::timeout(CLOSES_WITHIN, closed).await;
    let told = signalled.is_cancelled();
    let code = exit::of_outcome(&outcome, live, told);
    let printed = match code == Exit::Done && logging.is_quiet() {
        true => Ok(()),
        false => {
            let mirror = options.directory.as_path();
            let (logged, json) = (logging::Logged::by_level(), logging.is_json());
            let (allow_empty, signalled) = (options.allow_empty, told);
            let run = summary::Run { mirror, live, allow_empty, signalled, logged, json };
            summary::print(&outcome, run)
        }
    };
    match printed {
        // An error of the mirror takes precedence over an error of the output.
        Err(error) if code != Exit::Done => exit::say(&error.to_string()),
        printed => printed?,
    }
    Ok(code)
}

fn lower(options: &Options) -> anyhow::Result<MirrorConfig> {
    let config = options.chosen().lower(&options.source, &options.directory)?;
    let access = options.access.lower(&options.source, access::ServerRole::Source)?;
    Ok(config.access(access)?)
}

/// Answers other commands at the socket that was named, or at the mirror's own.
async fn serve(session: &Session, socket: Option<PathBuf>) -> anyhow::Result<MirrorAnswers> {
    match socket {
        None => Ok(MirrorAnswers::at_own_socket(session).await?),
        Some(path) => MirrorAnswers::at(session, &path).await.map_err(|error| match error {
            AnswerError::Mirror(error) => error.into(),
            error @ AnswerError::Socket { .. } => Usage(error.to_string()).into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::{Command, parse};

    #[test]
    fn of_the_two_options_about_attachments_the_last_one_counts() {
        let attachments = |more: &[&str]| {
            let typed = ["plainfold", "mirror", "feed:x", "d"];
            match parse(typed.iter().chain(more).map(OsString::from)).unwrap().command {
                Command::Mirror(options) => options.attachments(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(attachments(&[]), None);
        assert_eq!(attachments(&["--no-attachments"]), Some(false));
        assert_eq!(attachments(&["--attachments", "false"]), Some(false));
        assert_eq!(attachments(&["--no-attachments", "--attachments", "true"]), Some(true));
        assert_eq!(attachments(&["--attachments", "true", "--no-attachments"]), Some(false));
    }

    #[test]
    fn patience_is_a_number_of_seconds_or_a_duration_with_a_unit() {
        for (text, seconds) in [("0", 0), ("90", 90), ("2s", 2), ("5m", 300), ("1h 30m", 5400)] {
            assert_eq!(
                super::patience(text),
                Ok(std::time::Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "-1", "1.5", "2 fortnights", "s"] {
            assert!(super::patience(text).unwrap_err().contains("`90s`"), "{text}");
        }
    }
}
