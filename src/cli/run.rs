//! `plainfold run`: every mirror of a config, until a signal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config::ConfigFile;
use super::exit::Exit;
use super::listeners::Passed;
use super::output::many;
use super::{journal, listeners, logging, privacy, service, signals};
use crate::agent::{Agent, Begin, ConfigWatch, MirrorState, Roster, SessionEnd, all_started};
use crate::api::mirrors::serve_agent;
use crate::api::own::MirrorAnswers;
use crate::api::token_file::TokenFile;
use crate::config::file::{AgentConfig, ConfigChange, FileError, MirrorEntry};
use crate::document::{MirrorName, plain};
use crate::runner::Session;

/// All mirrors end within this time after a signal; otherwise the process ends without them.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `plainfold run` takes.
#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    file: ConfigFile,
}

/// Keeps the mirrors.
pub async fn run(
    options: Options,
    passed: Vec<Passed>,
    logging: &logging::Options,
) -> anyhow::Result<Exit> {
    logging.start(None)?;
    let path = options.file.path;
    let mut config = AgentConfig::read(&path)?;
    if passed.is_empty() {
        config = listeners::admissible(config, &path)?;
    }
    let signalled = signals::catch_within(PATIENCE)?;
    let mut hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
    let listening = match passed.is_empty() {
        true => listeners::listen(&config.api).await?,
        false => listeners::take(passed, &config.api.tokens)?,
    };
    listeners::announce(&listening, &config.api.tokens);
    let tokens = Arc::new(TokenFile::new(config.api.tokens.clone()));
    apply_modes(&config.mirrors);
    let mut watch = ConfigWatch::start(&path).map_err(|error| {
        tracing::warn!("{} is not watched, so only SIGHUP reloads it: {error}", path.display());
    });
    let mirrors = many(config.mirrors.len(), "mirror");
    tracing::info!("keeping {mirrors} of {}", path.display());
    let mut agent = Agent::start(&path, config, begin());
    let (roster, ended) = (agent.roster(), CancellationToken::new());
    let mut servers = Vec::new();
    for listener in listening {
        let ended = ended.clone().cancelled_owned();
        let serving = serve_agent(listener, roster.clone(), Arc::clone(&tokens), ended);
        servers.push(tokio::spawn(serving));
    }
    let reporting = tokio::spawn(report(roster.clone(), ended.clone()));
    loop {
        let told = tokio::select! {
            biased;
            () = signalled.cancelled() => break,
            hangup = hangups.recv() => hangup.is_some(),
            () = changed(&mut watch) => false,
        };
        reload(&mut agent, &path, told).await;
    }
    service::stopping();
    agent.stop().await;
    ended.cancel();
    // They only end; a client that is slow is not waited for.
    let _ended = reporting.await;
    for mut server in servers {
        if tokio::time::timeout(Duration::from_secs(1), &mut server).await.is_err() {
            // With the server, the file of its socket goes.
            server.abort();
            let _ended = server.await;
        }
    }
    tracing::info!("all mirrors have ended");
    Ok(Exit::Done)
}

async fn changed(watch: &mut Result<ConfigWatch, ()>) {
    match watch {
        Ok(watch) => watch.changed().await,
        Err(()) => std::future::pending().await,
    }
}

/// Reads the config again. `told` says that somebody asked for it, so that mirrors that are stuck are
/// tried at once.
async fn reload(agent: &mut Agent, path: &Path, told: bool) {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    if told {
        service::send(&states);
    }
    let (file, shown) = (path.to_owned(), path.display());
    let read = move || {
        let config = AgentConfig::read(&file)?;
        apply_modes(&config.mirrors);
        Ok::<_, FileError>(config)
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(config)) => {
            let change = agent.reload(config);
            if told || !change.is_empty() {
                tracing::info!("{shown} is in force: {}", words(&change));
            }
            if change.api {
                tracing::warn!(
                    "the change of [api] takes effect when `plainfold run` starts again"
                );
            }
        }
        Ok(Err(error)) => {
            let error = plain::with_causes(&error);
            tracing::error!("the config that was in force before stays in force: {error}");
            agent.refuse(error);
        }
        Err(error) => tracing::error!("internal error: {error}"),
    }
    if told {
        agent.start_stuck();
        service::send(&[NotifyState::Ready]);
    }
}

/// What a new config changes, for people.
fn words(change: &ConfigChange) -> String {
    let names = |names: &[MirrorName]| {
        names.iter().map(MirrorName::to_string).collect::<Vec<_>>().join(", ")
    };
    let parts =
        [("added", &change.added), ("removed", &change.removed), ("changed", &change.changed)];
    let parts = parts.iter().filter(|(_, all)| !all.is_empty());
    let mut parts: Vec<_> = parts.map(|(what, all)| format!("{what} {}", names(all))).collect();
    parts.push(format!("{} not changed", many(change.unchanged.len(), "mirror")));
    parts.join("; ")
}

fn apply_modes(mirrors: &[MirrorEntry]) {
    privacy::apply_to_all(mirrors.iter().map(|one| (one.directory.as_path(), one.options.mode)));
}

/// What answers requests about a session, and logs what it does.
fn begin() -> Begin {
    Arc::new(|session: &Session, entry: &MirrorEntry| {
        let (directory, follows) = (entry.directory.clone(), entry.schedule.is_live());
        Box::pin(async move {
            let answers = MirrorAnswers::at_own_socket(session).await?;
            let (watcher, ended) = (session.watcher(), CancellationToken::new());
            let telling = tokio::spawn(tell(watcher, directory, follows, ended.clone()));
            let end: SessionEnd = Box::new(move || {
                Box::pin(async move {
                    ended.cancel();
                    let _ended = telling.await;
                    answers.end().await;
                })
            });
            Ok(end)
        })
    })
}

async fn tell(
    watcher: crate::runner::Watcher,
    directory: PathBuf,
    follows: bool,
    ended: CancellationToken,
) {
    match follows {
        true => journal::keep(watcher, &directory, ended).await,
        false => journal::begin(watcher.source(), &directory),
    }
}

/// Reports to the service manager until `ended`. The service is ready when all mirrors have been started
/// once; their first copies may take hours.
async fn report(roster: Roster, ended: CancellationToken) {
    let ready = async {
        all_started(&roster).await;
        tracing::info!("all mirrors have been started: {}", line(&roster));
        service::send(&[NotifyState::Ready, NotifyState::Status(&line(&roster))]);
    };
    let alive = service::keep_alive(|| line(&roster), |_| true);
    tokio::select! {
        () = ended.cancelled() => {}
        ((), ()) = async { tokio::join!(ready, alive) } => {}
    }
}

/// The mirrors by state, in a line.
fn line(roster: &Roster) -> String {
    let mirrors = roster.mirrors();
    let states: Vec<MirrorState> = mirrors.iter().map(|mirror| mirror.state()).collect();
    let words = ["running", "waiting", "starting", "failed", "parked", "stopping"];
    let counts = words.iter().filter_map(|word| {
        let count = states.iter().filter(|state| state.word() == *word).count();
        (count > 0).then(|| format!("{count} {word}"))
    });
    let counts = counts.collect::<Vec<_>>().join(", ");
    let line = format!("{}: {counts}", many(mirrors.len(), "mirror"));
    match roster.trouble() {
        Some(_) => format!("{line}; the config on disk is wrong, and an older one is in force"),
        None => line,
    }
}
