//! The lines of a feed on their way to its collections.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use super::lines::Lines;
use super::loaded::Stop;
use super::names::Names;
use super::queue::Abandoned;
use super::routes::{Items, Routed, Routes};
use super::rows::{FoundRow, Rows, Want};
use crate::document::CollectionName;
use crate::source::FeedEvent;

/// The weight of an event that is not a change, in the bounds of queues.
const SMALL_EVENT: usize = 256;

/// What a reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// One collection of a file is read apart.
    Apart,
    /// The collections of a file are named.
    Names,
    /// All collections of a file are named and read together.
    Together,
    /// The same of what cannot be read twice.
    Piped,
}

/// Sends what lines say to where it belongs.
pub(super) struct Router {
    pub purpose: Purpose,
    pub routes: Arc<Routes>,
    pub names: Option<Names>,
    pending: HashMap<CollectionName, (Items, usize)>,
}

impl Router {
    /// A router that has sent nothing.
    pub fn new(purpose: Purpose, routes: Arc<Routes>, names: Option<Names>) -> Self {
        Self { purpose, routes, names, pending: HashMap::new() }
    }

    /// Whether anybody still receives what is read. A pipe is read to its end.
    pub fn check(&self) -> Result<(), Abandoned> {
        let named = || self.names.as_ref().map_or(Err(Abandoned), Names::check);
        match self.purpose {
            Purpose::Piped => Ok(()),
            Purpose::Apart => self.routes.check(),
            Purpose::Names | Purpose::Together => named().or_else(|_| self.routes.check()),
        }
    }

    fn reads(&self) -> bool {
        matches!(self.purpose, Purpose::Together | Purpose::Piped)
    }

    fn want(&self, name: &str, end: u64) -> Want {
        let is_new = |names: &&Names| !names.contains(name);
        match self.names.as_ref().filter(is_new) {
            _ if self.routes.wants(name, end) => Want::Row,
            Some(names) if self.reads() && names.wants(&name.into()) => Want::Row,
            Some(_) => Want::Name,
            None => Want::Nothing,
        }
    }

    /// Takes what was found in a line that ends there.
    fn take(&mut self, found: FoundRow, end: u64) -> Result<(), Abandoned> {
        let FoundRow { collection, event } = found;
        let (reads, is_piped) = (self.reads(), self.purpose == Purpose::Piped);
        if let Some(names) = &mut self.names
            && names.see(&collection)
        {
            if reads {
                self.routes.expect(&collection);
            }
            let announced = names.announce(&collection);
            if !is_piped && !reads {
                announced?;
            }
        }
        let Some(event) = event.filter(|_| self.routes.wants(collection.as_str(), end)) else {
            return Ok(());
        };
        let (items, weight) = self.pending.entry(collection).or_default();
        *weight += match &event {
            FeedEvent::Change(change) => change.weight(),
            _ => SMALL_EVENT,
        };
        items.push(Routed::Row(end, event));
        Ok(())
    }

    /// What was read and not sent is read again.
    pub fn forget(&mut self) {
        self.pending.clear();
    }

    fn flush(&mut self) -> Result<(), Abandoned> {
        let may_detach = self.purpose == Purpose::Together;
        for (collection, (items, weight)) in std::mem::take(&mut self.pending) {
            let check = || self.check();
            self.routes.send(&collection, items, weight, may_detach, &check)?;
        }
        Ok(())
    }
}

/// A text that is being read.
pub(super) struct LineReading {
    pub rows: Rows,
    pub lines: Lines,
}

impl LineReading {
    /// Sends all whole lines that have been read to where they belong.
    pub fn take_lines(&mut self, router: &mut Router) -> Result<(), Stop<io::Error>> {
        while let Some(line) = self.lines.take() {
            // From now on, nobody can attach who wants this line.
            router.routes.pass(line.end);
            let found = {
                let (want, check) = (|name: &str, end| router.want(name, end), || router.check());
                self.rows.line(line, &want, &check)?
            };
            if let Some(found) = found {
                router.take(found, line.end)?;
            }
        }
        router.flush()?;
        Ok(router.check()?)
    }

    /// The last line of a text that does not grow may lack its newline.
    pub fn take_rest(&mut self, router: &mut Router) -> Result<(), Stop<io::Error>> {
        let Some(line) = self.lines.rest() else { return Ok(()) };
        let whole = self.rows.is_whole(line, &|| router.check())?;
        let found = match whole {
            None => return Ok(()),
            Some(true) => {
                router.routes.pass(line.end);
                let (want, check) = (|name: &str, end| router.want(name, end), || router.check());
                self.rows.line(line, &want, &check)?
            }
            Some(false) => {
                if router.purpose != Purpose::Piped {
                    let (want, check) = (|_: &str, _| Want::Name, || router.check());
                    let named = self.rows.line(line, &want, &check)?;
                    if let Some(named) = named {
                        router.take(FoundRow { event: None, ..named }, line.end)?;
                    }
                }
                let cut = self.rows.cut(line);
                // A file is read again from here. A pipe has lost the row, and says so in any case.
                let is_wanted = router.purpose == Purpose::Piped
                    || router.routes.wants(cut.collection.as_str(), line.end);
                Some(cut).filter(|_| is_wanted)
            }
        };
        let end = line.end;
        if let Some(found) = found {
            router.take(found, end)?;
        }
        if whole == Some(true) {
            self.lines.take_rest();
        }
        router.flush()?;
        Ok(())
    }
}
