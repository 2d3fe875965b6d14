//! `GET /v1/events`: the write events of all mirrors of an agent in one stream, which mirrors join and leave
//! as their sessions start and end.
//!
//! A position in it is the number of the last event of each mirror: `books:12,loans:7`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use super::{
    EVENT_STREAM, Filter, FilterQuery, LAST_EVENT_ID, LINES, PASSING, Said, accepts, event_stream,
    glob, lines, pass_on, said,
};
use crate::agent::Roster;
use crate::api::problem::{ApiProblem, ApiProblemKind};
use crate::document::{MirrorName, Pattern};
use crate::event::WriteEvent;
use crate::runner::{Notice, Watcher};

/// The longest position that is the id of each event. A longer one comes in notices only.
const SHORT: usize = 512;

/// The longest position that is read.
const LONGEST: usize = 256 * 1024;

/// How often the position is sent while events come.
const EVERY: Duration = Duration::from_secs(1);

/// The most events between two positions.
const MOST: u32 = 1_000;

/// Where the stream begins.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PositionQuery {
    /// Begin after this position, such as `books:12,loans:7`; `start` is the oldest event of each journal.
    /// Without it, with the next event. The header `Last-Event-ID` takes precedence.
    since: Option<String>,
}

/// A write event of one of the mirrors.
#[derive(Debug, Serialize, ToSchema)]
pub struct MirrorEvent {
    /// The mirror.
    mirror: MirrorName,
    /// The event.
    #[serde(flatten)]
    event: WriteEvent,
}

/// Streams the write events of all mirrors
///
/// Each event has the name of its mirror (`mirror`). A notice `{"resume":…}` says where the stream is: a client
/// that sends it as `since` resumes there. As Server-Sent Events, the position is the `id`.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "all_events",
    params(PositionQuery, FilterQuery,
        ("mirror" = Option<Vec<String>>, Query, description = "Only events of these mirrors: names or globs; may be repeated"),
        ("Last-Event-ID" = Option<String>, Header, description = "The position of the last event that was received")
    ),
    responses((status = 200, description = "Events without end", content(
        (MirrorEvent = "application/x-ndjson"), (String = "text/event-stream")
    )))
)]
pub async fn follow(
    State(roster): State<Roster>,
    Query(PositionQuery { since }): Query<PositionQuery>,
    Query(filter): Query<FilterQuery>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiProblem> {
    let filter = Filter::new(filter)?;
    let wanted = mirrors(query.as_deref().unwrap_or_default(), &roster)?;
    let id = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    let id = id.map(|id| id.to_str().unwrap_or("?").to_owned());
    let since = id.or(since.filter(|since| !since.is_empty()));
    let since = since.as_deref().map(position).transpose()?;
    let all = All::begin(roster, wanted, filter, since);
    Ok(match accepts(&headers, EVENT_STREAM) {
        true => event_stream(all.items().map(|item| item.sse())),
        false => lines(all.items().map(|item| item.line)),
    })
}

/// The mirrors that a query wants; none is all.
fn mirrors(query: &str, roster: &Roster) -> Result<Vec<Pattern>, ApiProblem> {
    let pairs = url::form_urlencoded::parse(query.as_bytes());
    let globs = pairs.filter(|(key, _)| key == "mirror").map(|(_, glob)| glob);
    let pattern = |text: Cow<'_, str>| {
        let name = text.parse::<MirrorName>().ok();
        if name.is_some_and(|name| roster.get(&name).is_none()) {
            return Err(ApiProblem::no_mirror(&text));
        }
        glob("mirror", &text)
    };
    globs.map(pattern).collect()
}

/// The number of the last event of each mirror.
type Places = BTreeMap<MirrorName, u64>;

fn position(text: &str) -> Result<Places, ApiProblem> {
    let one = |one: &str| {
        let (name, number) = one.split_once(':')?;
        Some((name.parse().ok()?, number.parse().ok()?))
    };
    let all = match text {
        "start" => Some(Places::new()),
        _ if text.len() > LONGEST => None,
        _ => text.split(',').map(one).collect(),
    };
    all.ok_or_else(|| {
        let detail = "the position is not one that a stream of all mirrors has sent: give the last \
                      `resume` or `id`, or leave it out to begin with the next event";
        ApiProblem::new(ApiProblemKind::BadRequest, detail)
    })
}

fn text(position: &Places) -> String {
    let each = position.iter().map(|(name, number)| format!("{name}:{number}"));
    each.collect::<Vec<_>>().join(",")
}

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
struct Item {
    name: &'static str,
    line: Bytes,
    id: Option<String>,
}

impl Item {
    fn sse(&self) -> Event {
        let line = String::from_utf8_lossy(&self.line);
        let event = Event::default().event(self.name).data(line.trim_end());
        match &self.id {
            Some(id) => event.id(id),
            None => event,
        }
    }
}

/// A stream of the events of all mirrors. It holds no mirror open: what reads a mirror's events ends with its
/// session.
struct All {
    roster: Roster,
    changed: watch::Receiver<u64>,
    wanted: Vec<Pattern>,
    filter: Filter,
    position: Places,
    /// Whether a client resumes, to which every event of a mirror without a position is new.
    resumes: bool,
    /// The sessions whose events are read. Each token is cancelled when its session has ended.
    joined: HashMap<MirrorName, CancellationToken>,
    sender: mpsc::Sender<(MirrorName, Said)>,
    receiver: mpsc::Receiver<(MirrorName, Said)>,
    /// What was passed since the position was sent last.
    unsaid: u32,
    /// When the position is sent again, if anything was passed.
    due: Instant,
}

impl All {
    fn begin(roster: Roster, wanted: Vec<Pattern>, filter: Filter, since: Option<Places>) -> Self {
        let (sender, receiver) = mpsc::channel(LINES);
        let resumes = since.is_some();
        let mut all = Self {
            changed: roster.changed(),
            roster,
            wanted,
            filter,
            position: since.unwrap_or_default(),
            resumes,
            joined: HashMap::new(),
            sender,
            receiver,
            // Where the stream begins is said first.
            unsaid: MOST,
            due: Instant::now(),
        };
        if !resumes {
            for mirror in all.roster.mirrors() {
                let number = mirror.last_event().filter(|_| all.wants(mirror.name()));
                all.position.extend(number.map(|number| (mirror.name().clone(), number)));
            }
        }
        all.join();
        all
    }

    fn wants(&self, name: &MirrorName) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|glob| glob.matches(name.as_str()))
    }

    /// Reads the events of the sessions that have started.
    fn join(&mut self) {
        for mirror in self.roster.mirrors() {
            let Some(watcher) = mirror.watcher().filter(|_| self.wants(mirror.name())) else {
                continue;
            };
            let (name, ended) = (mirror.name().clone(), watcher.ended());
            let is_read = self.joined.get(&name).is_some_and(|before| !before.is_cancelled());
            if is_read || ended.is_cancelled() {
                continue;
            }
            let since = self.beginning(&name, &watcher);
            self.position.insert(name.clone(), since);
            let said = said(watcher.subscribe(Some(since)), self.filter.clone(), Some(PASSING));
            let of = name.clone();
            let said = said.map(move |said| (of.clone(), said));
            tokio::spawn(pass_on(said, ended.clone(), self.sender.clone()));
            self.joined.insert(name, ended);
        }
    }

    /// The number of the event after which a session is read.
    fn beginning(&self, name: &MirrorName, watcher: &Watcher) -> u64 {
        match self.position.get(name) {
            Some(number) if *number <= watcher.last_event() => *number,
            // It is another mirror of the same name.
            Some(_) => watcher.before_journal(),
            None if self.resumes => watcher.before_journal(),
            None => watcher.began_after(),
        }
    }

    /// What is sent of a part of a mirror's stream, if anything.
    fn pass(&mut self, name: MirrorName, said: Said) -> Option<Item> {
        let place = self.position.entry(name.clone()).or_default();
        let number = match &said {
            Said::Notice(Notice::Event(event)) => Some(event.event),
            Said::Notice(Notice::Expired(_, last)) => Some(*last),
            Said::Notice(Notice::Lagged(_)) => None,
            Said::Passed(number) => Some(*number),
        };
        if let Some(number) = number {
            // The session before has sent it.
            if number <= *place {
                return None;
            }
            *place = number;
            self.unsaid += 1;
        }
        let Said::Notice(notice) = said else { return None };
        let line = notice.line();
        let rest = line.strip_prefix(b"{").unwrap_or(&line);
        let line = [format!("{{\"mirror\":\"{name}\",").as_bytes(), rest].concat().into();
        Some(Item { name: super::name(&notice), line, id: self.id() })
    }

    /// The position, if it is short.
    fn id(&self) -> Option<String> {
        // A look at the count saves writing a long one for each event.
        let is_few = self.position.len() <= SHORT / 4;
        is_few.then(|| text(&self.position)).filter(|text| text.len() <= SHORT)
    }

    /// Where the stream is.
    fn here(&mut self) -> Item {
        self.unsaid = 0;
        self.due = Instant::now() + EVERY;
        let text = text(&self.position);
        let line = format!("{{\"resume\":\"{text}\"}}\n").into();
        Item { name: "resume", line, id: Some(text) }
    }

    /// The next item; `None` when the agent ends.
    async fn next(&mut self) -> Option<Item> {
        loop {
            if self.unsaid >= MOST {
                return Some(self.here());
            }
            let passed = tokio::select! {
                biased;
                passed = self.receiver.recv() => passed,
                () = self.roster.ended() => return None,
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                    self.join();
                    continue;
                }
                () = tokio::time::sleep_until(self.due), if self.unsaid > 0 => {
                    return Some(self.here());
                }
            };
            let (name, said) = passed?;
            if let Some(item) = self.pass(name, said) {
                return Some(item);
            }
        }
    }

    fn items(self) -> impl Stream<Item = Item> + Send {
        stream::unfold(self, |mut all| async move {
            let item = all.next().await?;
            Some((item, all))
        })
    }
}

#[cfg(test)]
mod tests;
