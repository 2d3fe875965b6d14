//! Which of the sleeping collections have changed: the source announces it, or their marks are
//! compared again and again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::order::Order;
use super::shared::Shared;
use crate::clock::Moment;
use crate::document::CollectionName;
use crate::source::{ChangeMark, SourceError, Store, Update};

/// The pause between two sweeps where the source announces nothing.
const SWEEP: Duration = Duration::from_secs(30);

/// The pause between two sweeps while the source announces changes: it may leave some out.
const SWEEP_ANNOUNCED: Duration = Duration::from_secs(300);

/// A source that refuses to announce changes is asked again after this number of sweeps.
const REFUSED: u32 = 120;

/// How many marks are requested at once: CouchDB's own limit.
const AT_ONCE: usize = 100;

/// A task that looks for changes. It ends when it is dropped.
pub(super) struct News {
    task: JoinHandle<()>,
}

impl News {
    /// Starts to look.
    pub fn start(store: Arc<dyn Store>, shared: Arc<Shared>) -> Self {
        let (marks, announced, in_step) = (HashMap::new(), Announced::default(), None);
        let look = Look { store, shared, marks, announced, in_step };
        Self { task: tokio::spawn(look.run()) }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Look {
    store: Arc<dyn Store>,
    shared: Arc<Shared>,
    /// The marks at the last sweep.
    marks: HashMap<CollectionName, ChangeMark>,
    announced: Announced,
    /// The time of the last complete sweep or announcement.
    in_step: Option<Moment>,
}

/// Compares what the source announces with what sweeps find.
#[derive(Debug, Default)]
struct Announced {
    /// What was announced since the last sweep.
    names: HashSet<CollectionName>,
    /// What the last sweep found changed, and was not announced until now.
    missed: BTreeSet<CollectionName>,
    /// Whether it has left something out.
    is_partial: bool,
}

impl Announced {
    fn note(&mut self, name: &CollectionName) {
        self.names.insert(name.clone());
        self.missed.remove(name);
    }

    fn note_sweep(&mut self, changed: Vec<CollectionName>) {
        self.missed = changed.into_iter().filter(|name| !self.names.contains(name)).collect();
        self.names.clear();
    }

    /// A while after a sweep: what it found has been announced by now, or never will be. Returns a
    /// collection that was left out, once.
    fn judge(&mut self) -> Option<CollectionName> {
        let missed = std::mem::take(&mut self.missed).into_iter().next()?;
        let is_first = !std::mem::replace(&mut self.is_partial, true);
        is_first.then_some(missed)
    }

    fn is_trusted(&self) -> bool {
        !self.is_partial
    }

    /// The pause between two sweeps.
    fn pause(&self) -> Duration {
        if self.is_partial { SWEEP } else { SWEEP_ANNOUNCED }
    }
}

impl Look {
    async fn run(mut self) {
        let mut silent = 0;
        loop {
            if silent == 0 {
                match self.follow().await {
                    Ok(()) | Err(SourceError::Transient { .. }) => {}
                    Err(error) => {
                        tracing::info!(
                            "the server does not announce changes of databases; their update sequences \
                             are compared every {} s instead: {error}",
                            SWEEP.as_secs(),
                        );
                        silent = REFUSED;
                    }
                }
            }
            silent = silent.saturating_sub(1);
            self.sweep().await;
            tokio::time::sleep(SWEEP).await;
        }
    }

    /// Follows what the source announces, until it breaks off. Sweeps meanwhile find what it leaves out.
    async fn follow(&mut self) -> Result<(), SourceError> {
        let Some(mut updates) = self.store.updates() else { return Ok(()) };
        let (mut complete, mut judging) = (false, false);
        let mut wake = Instant::now() + self.announced.pause();
        loop {
            let update = tokio::select! {
                update = updates.next() => update,
                () = sleep_until(wake) => {
                    if judging && let Some(name) = self.announced.judge() {
                        tracing::warn!(
                            collection = %name,
                            "the server has not announced that this database changed; the update \
                             sequences of all databases are compared every {} s, too",
                            SWEEP.as_secs(),
                        );
                    }
                    if judging && self.announced.is_trusted() {
                        (judging, wake) = (false, Instant::now() + SWEEP_ANNOUNCED - SWEEP);
                        continue;
                    }
                    let was_complete = complete;
                    complete = self.sweep().await;
                    // What changed before is not announced.
                    judging = was_complete && complete && self.announced.is_trusted();
                    wake = Instant::now() + if judging { SWEEP } else { self.announced.pause() };
                    continue;
                }
            };
            match update {
                None => return Ok(()),
                Some(Err(error)) => return Err(error),
                Some(Ok(Update::Begun)) => complete = self.sweep().await,
                Some(Ok(Update::Changed(name))) => {
                    // A server may have more databases than the mirror follows.
                    if self.shared.members().contains_key(&name) {
                        self.announced.note(&name);
                        self.say(Order::Visit(name));
                    }
                    if complete && self.announced.is_trusted() {
                        self.in_step = Some(Moment::now());
                    }
                }
                // That nothing is announced is no proof that nothing has changed.
                Some(Ok(Update::Silence)) if complete => self.say_in_step(),
                Some(Ok(Update::Silence)) => complete = self.sweep().await,
            }
        }
    }

    /// Compares the marks of all collections with those of the last sweep. Returns whether all could be
    /// read.
    async fn sweep(&mut self) -> bool {
        let begun = Moment::now();
        let names: Vec<CollectionName> = self.shared.members().keys().cloned().collect();
        let mut changed = Vec::new();
        for some in names.chunks(AT_ONCE) {
            let marks = match self.store.marks(some).await {
                Ok(marks) => marks,
                Err(error) => {
                    tracing::debug!("the update sequences could not be read: {error}");
                    return false;
                }
            };
            for (name, mark) in some.iter().zip(marks) {
                if mark == ChangeMark::Unknown || self.marks.get(name) != Some(&mark) {
                    let is_known = mark != ChangeMark::Unknown;
                    let before = self.marks.insert(name.clone(), mark);
                    if is_known && before.is_some_and(|one| one != ChangeMark::Unknown) {
                        changed.push(name.clone());
                    }
                    self.say(Order::Visit(name.clone()));
                }
            }
        }
        self.announced.note_sweep(changed);
        self.in_step = Some(begun);
        self.say_in_step();
        true
    }

    fn say_in_step(&self) {
        self.say(Order::InStep { since: self.in_step, heard: Moment::now() });
    }

    fn say(&self, order: Order) {
        // Without a supervisor, nobody wants to know.
        let _ended = self.shared.orders.send(order);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::{BoxFuture, FutureExt};
    use futures_util::stream::{self, BoxStream};
    use tokio::sync::mpsc::UnboundedReceiver;

    use super::*;
    use crate::checkpoint::tests::open;
    use crate::document::Position;
    use crate::mirror::{Mirror, MirrorOptions};
    use crate::pipeline::Reporter;
    use crate::runner::shared::Member;
    use crate::source::{Capabilities, Feed, Mode, StoreEvent};
    use crate::tree::Holder;

    /// A server that announces nothing, with the marks of its databases.
    #[derive(Default)]
    struct Mute {
        marks: Mutex<HashMap<CollectionName, u32>>,
        /// How often the whole comparison fails.
        failing: Mutex<u32>,
    }

    impl Store for Mute {
        fn identity(&self) -> String {
            "mute".to_owned()
        }

        fn origin(&self, collection: &CollectionName) -> String {
            collection.to_string()
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::default()
        }

        fn wants(&self, _: &CollectionName) -> bool {
            true
        }

        fn collections(
            &self,
            _: Mode,
            _: Option<Position>,
        ) -> BoxStream<'static, Result<StoreEvent, SourceError>> {
            stream::empty().boxed()
        }

        fn updates(&self) -> Option<BoxStream<'static, Result<Update, SourceError>>> {
            let refused = Err(SourceError::Refused { what: "no admin".to_owned() });
            Some(stream::iter([refused]).boxed())
        }

        fn marks<'a>(
            &'a self,
            collections: &'a [CollectionName],
        ) -> BoxFuture<'a, Result<Vec<ChangeMark>, SourceError>> {
            let mut failing = self.failing.lock().unwrap();
            if *failing > 0 {
                *failing -= 1;
                return async { Err(SourceError::transient("500")) }.boxed();
            }
            let marks = self.marks.lock().unwrap();
            let mark = |name| ChangeMark::At(marks.get(name).copied().unwrap_or(0).to_string());
            let marks = collections.iter().map(mark).collect();
            async { Ok(marks) }.boxed()
        }

        fn open(&self, _: &CollectionName) -> Arc<dyn Feed> {
            unreachable!("nothing runs here")
        }
    }

    /// What the next complete comparison says has changed.
    async fn next_sweep(orders: &mut UnboundedReceiver<Order>) -> Vec<String> {
        let mut visits = Vec::new();
        loop {
            match orders.recv().await.unwrap() {
                Order::Visit(name) => visits.push(name.to_string()),
                Order::InStep { .. } => return visits,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_announced_the_marks_are_compared_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let holder = Holder::this_process("mirror");
        let mirror = Mirror::open(dir.path(), &MirrorOptions::default(), &holder).unwrap();
        let state = Arc::new(open(&mirror.state_path()));
        let (shared, mut orders) = Shared::new(Arc::new(mirror), state, "mute".to_owned());
        for name in ["a", "b"] {
            let member = Member::new(Reporter::new(name.into()));
            shared.members().insert(name.into(), member);
        }
        let store = Arc::new(Mute::default());
        let _news = News::start(Arc::clone(&store) as Arc<dyn Store>, Arc::new(shared));
        assert_eq!(next_sweep(&mut orders).await, ["a", "b"], "nothing is known of them");
        let mut begun = Instant::now();
        assert!(next_sweep(&mut orders).await.is_empty());
        assert_eq!(begun.elapsed(), SWEEP);
        store.marks.lock().unwrap().insert("b".into(), 1);
        assert_eq!(next_sweep(&mut orders).await, ["b"]);
        (*store.failing.lock().unwrap(), begun) = (1, Instant::now());
        store.marks.lock().unwrap().insert("a".into(), 1);
        assert_eq!(next_sweep(&mut orders).await, ["a"], "it is still new after a failure");
        assert_eq!(begun.elapsed(), SWEEP * 2);
    }

    #[test]
    fn a_source_that_leaves_out_a_change_is_found_out_once() {
        let (a, b) = (CollectionName::from("a"), CollectionName::from("b"));
        let mut announced = Announced::default();
        announced.note(&a);
        announced.note_sweep(vec![a.clone(), b.clone()]);
        announced.note(&b);
        assert_eq!((announced.judge(), announced.pause()), (None, SWEEP_ANNOUNCED), "a late one");
        announced.note_sweep(vec![a.clone()]);
        assert_eq!((announced.judge(), announced.pause()), (Some(a.clone()), SWEEP));
        announced.note_sweep(vec![a]);
        assert_eq!(announced.judge(), None);
        assert!(!announced.is_trusted());
    }
}
