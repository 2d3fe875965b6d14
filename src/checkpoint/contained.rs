//! Contains sled: its panics become errors, and a call that never returns is abandoned.
//!
//! sled unwraps some failures of the file system, and after others it may wait forever for one of
//! its threads. So writes run on a thread that belongs to the store, and the caller regularly
//! checks whether sled has failed.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Why a call did not return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Escaped {
    /// sled panicked with this message.
    Panicked(String),
    /// sled failed, and the call would wait forever.
    Stuck(String),
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// The number of sled's threads that have panicked.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Runs `call`. A panic in it prints nothing.
pub fn contain<T>(call: impl FnOnce() -> T) -> Result<T, Escaped> {
    quieten();
    let before = CONTAINED.replace(true);
    let called = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(before);
    called.map_err(|panic| Escaped::Panicked(words(&*panic)))
}

/// Silences panics of sled: they are reported as errors. Other panics are printed as before.
fn quieten() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_sleds = std::thread::current().name().is_some_and(|it| it.starts_with("sled-"));
            if is_sleds {
                PANICS.fetch_add(1, Ordering::AcqRel);
            } else if !CONTAINED.get() {
                before(panic);
            }
        }));
    });
}

/// The first line of a panic message.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    text.lines().next().unwrap_or_default().to_owned()
}

type Call = Box<dyn FnOnce() + Send>;

/// A thread for writing calls.
#[derive(Debug)]
pub struct Worker {
    calls: Sender<Call>,
}

/// The interval at which a long call is checked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// After this many checks since sled failed, a call has had enough time to end.
const LOOKS: u32 = 4;

impl Worker {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (calls, waiting): (Sender<Call>, Receiver<Call>) = channel();
        let work = move || waiting.into_iter().for_each(|call| call());
        std::thread::Builder::new().name("plainfold-state".to_owned()).spawn(work)?;
        Ok(Self { calls })
    }

    /// Runs `call` on the thread, and waits for its end unless the sled of `config` has failed.
    pub fn run<T: Send + 'static>(
        &self,
        config: &sled::Config,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Escaped> {
        let panics = PANICS.load(Ordering::Acquire);
        let (done, ended) = channel();
        let call = Box::new(move || {
            // Nobody waits for an abandoned call.
            let _left = done.send(contain(call));
        });
        let stuck = |why: &str| Err(Escaped::Stuck(why.to_owned()));
        if self.calls.send(call).is_err() {
            return stuck("its thread has ended");
        }
        let mut looks = 0;
        loop {
            match ended.recv_timeout(LOOK_EVERY) {
                Ok(called) => return called,
                Err(RecvTimeoutError::Disconnected) => return stuck("its thread has ended"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let failure = match config.global_error() {
                Err(error) => Some(error.to_string()),
                Ok(()) if PANICS.load(Ordering::Acquire) > panics => {
                    Some("a thread of sled panicked".to_owned())
                }
                Ok(()) => None,
            };
            if let Some(failure) = failure {
                looks += 1;
                if looks == LOOKS {
                    return stuck(&failure);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words_and_the_thread_lives_on() {
        assert_eq!(contain(|| 1), Ok(1));
        let said = contain(|| panic!("on line one\nand two")).unwrap_err();
        assert_eq!(said, Escaped::Panicked("on line one".to_owned()));
        let worker = Worker::start().unwrap();
        let config = sled::Config::new();
        let said = worker.run(&config, || panic!("{}", 7)).unwrap_err();
        assert_eq!(said, Escaped::Panicked("7".to_owned()));
        assert_eq!(worker.run(&config, || 2), Ok(2));
    }

    #[test]
    fn a_call_that_waits_for_a_thread_of_sleds_that_has_panicked_is_left_behind() {
        let worker = Worker::start().unwrap();
        let (never, wait) = channel::<()>();
        let said = worker.run(&sled::Config::new(), move || {
            let thread = std::thread::Builder::new().name("sled-io-test".to_owned());
            let thread = thread.spawn(|| panic!("a fault")).unwrap();
            thread.join().unwrap_err();
            wait.recv()
        });
        assert_eq!(said, Err(Escaped::Stuck("a thread of sled panicked".to_owned())));
        drop(never);
    }
}
