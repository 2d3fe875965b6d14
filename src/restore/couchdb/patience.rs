//! Waits for a server whose errors are transient, and asks it again.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::Instant;

use crate::client::couchdb::{Error, Kind, LONGEST_ASKED};

/// The number of attempts for a request with a transient error: about half a minute.
pub(super) const TRIES: usize = 7;

/// How long a request is repeated. The server may ask for a longer pause once.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a pause for which the server asks is too long for a request that has failed for this time.
/// `obeyed` says whether a long one was granted.
fn is_too_long(asked: Duration, failing_for: Duration, obeyed: &mut bool) -> bool {
    asked > PATIENCE.saturating_sub(failing_for) && std::mem::replace(obeyed, true)
}

/// Why requests wait, as it was logged last. Several of them wait for the same reason, and a process
/// restores into one server.
static LOGGED: Mutex<Option<String>> = Mutex::new(None);

/// Logs that a request is repeated: a warning for each new reason.
fn log_wait(error: &Error, pause: Duration) {
    let text = error.to_string();
    // The request comes first, up to the first colon before a space.
    let reason = text.split_once(": ").map_or(&*text, |(_, reason)| reason);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = pause.as_secs_f32();
    if logged.as_deref() == Some(reason) {
        tracing::debug!("the target failed: {text}; trying again in {seconds:.1} s");
    } else {
        tracing::warn!("the target failed: {text}; trying again in {seconds:.1} s");
        *logged = Some(reason.to_owned());
    }
}

/// Repeats a request while its error may be transient.
pub(super) async fn patiently<R, F>(
    tries: usize,
    mut request: impl FnMut() -> F,
) -> Result<R, Error>
where
    F: Future<Output = Result<R, Error>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .with_max_times(tries.saturating_sub(1))
        .build();
    let (mut failing, mut obeyed) = (None, false);
    for pause in pauses {
        let error = match request().await {
            Ok(answer) => {
                if failing.is_some() {
                    *LOGGED.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        let Kind::Transient { retry_after } = error.kind() else { return Err(error) };
        let asked = retry_after.unwrap_or_default().min(LONGEST_ASKED);
        let since = *failing.get_or_insert_with(Instant::now);
        if is_too_long(asked, since.elapsed(), &mut obeyed) {
            return Err(error);
        }
        let pause = pause.max(asked);
        log_wait(&error, pause);
        tokio::time::sleep(pause).await;
    }
    request().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a request that fails each time with this error ends: after how long, and how many tries.
    async fn failed(tries: usize, kind: Kind) -> (Duration, usize) {
        let (begun, mut asked) = (Instant::now(), 0);
        let answer = patiently(tries, || {
            asked += 1;
            async { Err::<(), _>(Error::new(kind, "it fails")) }
        });
        assert_eq!(answer.await.unwrap_err().kind(), kind);
        (begun.elapsed(), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_repeated_for_half_a_minute_and_only_while_its_error_is_transient() {
        let (waited, asked) = failed(TRIES, Kind::Transient { retry_after: None }).await;
        assert_eq!(asked, TRIES);
        assert!((15..=40).contains(&waited.as_secs()), "{waited:?}");
        for kind in [Kind::Refused, Kind::Missing, Kind::TooLarge, Kind::Permanent] {
            assert_eq!(failed(TRIES, kind).await, (Duration::ZERO, 1), "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_server_asks_for_is_kept_and_a_second_long_one_is_not() {
        let hour = Some(Duration::from_secs(3600));
        let (waited, asked) = failed(TRIES, Kind::Transient { retry_after: hour }).await;
        assert_eq!((waited.as_secs(), asked), (LONGEST_ASKED.as_secs(), 2));
    }

    #[test]
    fn a_server_that_asks_for_longer_and_longer_pauses_gets_one_of_them() {
        let (mut failing_for, mut obeyed) = (Duration::ZERO, false);
        let waited = [5, 10, 20, 40].map(|asked| {
            let asked = Duration::from_secs(asked);
            let waits = !is_too_long(asked, failing_for, &mut obeyed);
            failing_for += asked;
            waits
        });
        assert_eq!(waited, [true, true, true, false]);
    }
}
