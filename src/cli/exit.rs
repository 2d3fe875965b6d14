//! Exit codes: what each outcome is called by scripts and services.

use std::process::ExitCode;

use super::output::{Lines, OutputError, Stream};
use crate::api::client::DoorError;
use crate::api::tokens::TokenError;
use crate::checkpoint::StateError;
use crate::config::file::{CheckError, FileError};
use crate::config::{ConfigError, OpenError, StartError};
use crate::document::plain;
use crate::pipeline::PipelineError;
use crate::restore::{Cause, RestoreError, TargetError};
use crate::runner::{self, Absent, SessionError};
use crate::source::SourceError;
use crate::tree::MirrorError;
use crate::verify::VerifyError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// Success; for a mirror that follows its source, also the end by SIGINT or SIGTERM.
    Done = 0,
    /// The run is complete, but documents failed, deletions are held back, or something is damaged,
    /// different or missing.
    DocumentsFailed = 1,
    /// The arguments make no sense or name something that does not exist, or the target holds other
    /// documents.
    Usage = 2,
    /// The source or target does not answer, or has no such database, or cannot be read or written.
    SourceUnreachable = 3,
    /// The source or target refused the credentials.
    Refused = 4,
    /// The mirror cannot be used: locked, of a newer format, other people's files, a failing disk; or
    /// the process that holds it does not answer.
    MirrorUnusable = 5,
    /// Another process has taken the mirror over.
    TakenOver = 6,
    /// An internal error: a bug in Plainfold.
    Failure = 70,
    /// The command's output, a manifest or the file of a feed cannot be written.
    OutputFailed = 74,
    /// Stopped by SIGINT or SIGTERM before it was done.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Writes what ended a command to standard error: the error, and those causes that its text does not
/// contain.
pub fn say_error(error: &anyhow::Error) {
    say(&plain::with_causes(error.as_ref()));
}

/// Writes a line to standard error that ends a command.
pub fn say(text: &str) {
    // If standard error is closed, there is no place left to report that.
    let _closed = Stream::Stderr.write("the error", &Lines::of(&format!("plainfold: {text}")));
}

/// The code for an error that ended a command.
pub fn of(error: &anyhow::Error) -> Exit {
    if let Some(error) = error.downcast_ref::<StartError>() {
        return of_start(error);
    }
    if let Some(error) = error.downcast_ref::<OpenError>() {
        return match error {
            OpenError::Config(_) => Exit::Usage,
            OpenError::Source(error) => of_source(error),
        };
    }
    if let Some(error) = error.downcast_ref::<VerifyError>() {
        return match error {
            VerifyError::Mirror(error) => of_mirror(error),
            VerifyError::Source(error) => of_source(error),
            VerifyError::Selection(_) => Exit::Usage,
            VerifyError::Temporary(_) => Exit::Failure,
            VerifyError::Cancelled => Exit::Interrupted,
        };
    }
    if let Some(error) = error.downcast_ref::<RestoreError>() {
        return of_restore(error);
    }
    if let Some(error) = error.downcast_ref::<PipelineError>() {
        return of_pipeline(error);
    }
    if error.is::<OutputError>() {
        return Exit::OutputFailed;
    }
    if let Some(error) = error.downcast_ref::<DoorError>() {
        return match error {
            DoorError::Mirror(error) => of_mirror(error),
            DoorError::State(_) | DoorError::Unanswered(_) => Exit::MirrorUnusable,
            DoorError::NoCollection(_) | DoorError::AtRest(..) | DoorError::NoCursor(_) => {
                Exit::Usage
            }
        };
    }
    if let Some(error) = error.downcast_ref::<MirrorError>() {
        return of_mirror(error);
    }
    if let Some(error) = error.downcast_ref::<TokenError>() {
        return match error {
            TokenError::Io { what: "written", .. } => Exit::OutputFailed,
            _ => Exit::Usage,
        };
    }
    if error.is::<StateError>() {
        return Exit::MirrorUnusable;
    }
    if error.is::<ConfigError>() || error.is::<FileError>() || error.is::<Usage>() {
        return Exit::Usage;
    }
    Exit::Failure
}

/// A mistake that the user can correct by typing something else.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// The code for how a session ended. `signalled` says that a signal asked it to stop.
pub fn of_outcome(outcome: &runner::Outcome, live: bool, signalled: bool) -> Exit {
    // The worst comes first: a mirror that cannot be used concerns everything.
    let worst = outcome.errors.iter().map(of_session).max();
    match worst {
        Some(exit) => exit,
        None if live && signalled => Exit::Done,
        None if !outcome.caught_up => Exit::Interrupted,
        None if outcome.absent.iter().any(Absent::is_mistake) => Exit::Usage,
        None if outcome.is_complete() => Exit::Done,
        None => Exit::DocumentsFailed,
    }
}

/// The code for what does not work of a mirror in a config.
pub fn of_check(error: &CheckError) -> Exit {
    match error {
        CheckError::Lower(_) | CheckError::Program(_) => Exit::Usage,
        CheckError::Absent(absent) if absent.iter().any(Absent::is_mistake) => Exit::Usage,
        CheckError::Absent(_) => Exit::DocumentsFailed,
        CheckError::Start(error) => of_start(error),
        CheckError::Slow(_) => Exit::SourceUnreachable,
    }
}

fn of_start(error: &StartError) -> Exit {
    match error {
        StartError::Mirror(MirrorError::Discards { .. } | MirrorError::OtherSource { .. })
        | StartError::Glob(_) => Exit::Usage,
        StartError::Mirror(error) => of_mirror(error),
        StartError::State(_) => Exit::MirrorUnusable,
        StartError::Source(error) => of_source(error),
    }
}

fn of_session(error: &SessionError) -> Exit {
    match error {
        SessionError::Source(error) => of_source(error),
        SessionError::Mirror(error) => of_mirror(error),
        SessionError::Collection { error, .. } => of_pipeline(error),
    }
}

fn of_pipeline(error: &PipelineError) -> Exit {
    match error {
        PipelineError::Source(error) => of_source(error),
        PipelineError::Disagrees(_) => Exit::SourceUnreachable,
        PipelineError::Mirror(MirrorError::OtherSource { .. } | MirrorError::Discards { .. }) => {
            Exit::Usage
        }
        PipelineError::State(StateError::Abandoned) => Exit::Failure,
        PipelineError::Mirror(error) => of_mirror(error),
        PipelineError::State(_) => Exit::MirrorUnusable,
        PipelineError::TooManyFailures { .. } => Exit::DocumentsFailed,
        PipelineError::Task(_) => Exit::Failure,
    }
}

fn of_mirror(error: &MirrorError) -> Exit {
    match error {
        MirrorError::TakenOver { .. } => Exit::TakenOver,
        _ => Exit::MirrorUnusable,
    }
}

fn of_restore(error: &RestoreError) -> Exit {
    match error {
        RestoreError::Mirror(error) => of_mirror(error),
        RestoreError::Target(TargetError::Transient(_)) => Exit::SourceUnreachable,
        RestoreError::Target(TargetError::Permanent { cause, .. }) => match cause {
            Cause::Credentials => Exit::Refused,
            Cause::File => Exit::OutputFailed,
            Cause::Rejected | Cause::Unusable => Exit::SourceUnreachable,
        },
        RestoreError::NotEmpty { .. }
        | RestoreError::OtherSecurity { .. }
        | RestoreError::FileExists { .. }
        | RestoreError::Selection(_) => Exit::Usage,
        RestoreError::Task(_) => Exit::Failure,
    }
}

fn of_source(error: &SourceError) -> Exit {
    match error {
        SourceError::Refused { .. } => Exit::Refused,
        SourceError::NotAFeed { .. } => Exit::Usage,
        SourceError::Transient { .. }
        | SourceError::Expired { .. }
        | SourceError::Missing { .. }
        | SourceError::Permanent { .. } => Exit::SourceUnreachable,
    }
}
