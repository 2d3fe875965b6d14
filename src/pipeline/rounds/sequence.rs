//! The sequence of rounds and signals: what is made of the work that the reader of the feed passes on.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{LOOK, Rounds};
use crate::pipeline::PipelineError;
use crate::pipeline::batch::Batch;
use crate::pipeline::beside::Brought;
use crate::pipeline::prepared::Prepared;
use crate::pipeline::work::{Signal, Work};
use crate::source::Mode;

/// The time that a follower at the end of the source waits for fetches before it reports that it has
/// caught up.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Rounds {
    /// Makes rounds of all batches, and passes them on.
    pub async fn make_all(
        mut self,
        batches: mpsc::Receiver<Work<Batch>>,
        prepared: mpsc::Sender<Work<Prepared>>,
    ) -> Result<(), PipelineError> {
        let made = self.make(batches, &prepared).await;
        // No fetch outlives the pipeline, and a cancelled fetch leaves no file.
        self.beside.stop().await;
        made.map(drop)
    }

    /// `None` if the settler has ended, which reports the reason itself.
    async fn make(
        &mut self,
        mut batches: mpsc::Receiver<Work<Batch>>,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        enum Next {
            Stop,
            Work(Work<Batch>),
            Ended,
            Brought(Box<Brought>),
            Revisit,
            Look,
        }
        let follows = self.pipeline.options.mode == Mode::Follow;
        let mut revisits = interval(self.pipeline.options.revisit);
        revisits.set_missed_tick_behavior(MissedTickBehavior::Delay);
        revisits.reset();
        let (mut stopped, mut caught_up) = (false, None);
        let stop = self.stop.clone();
        // Results that arrived before the stop may have to wait for earlier rounds.
        let mut last_rounds = 3;
        let removals_only = self.pipeline.removals_only;
        if !removals_only {
            self.beside.revisit();
            self.first = self.beside.mark();
        }
        loop {
            let is_empty = self.beside.is_empty();
            let next = tokio::select! {
                biased;
                () = stop.cancelled(), if !stopped => Next::Stop,
                work = batches.recv() => work.map_or(Next::Ended, Next::Work),
                brought = self.beside.brought(), if !is_empty && !stopped => Next::Brought(Box::new(brought?)),
                _ = revisits.tick(), if follows && !stopped => Next::Revisit,
                () = sleep(LOOK), if caught_up.is_some() || (self.read_to_end && !self.told) => Next::Look,
            };
            let sent = match next {
                Next::Stop => {
                    stopped = true;
                    self.beside.stop().await;
                    self.round(Batch::default(), None, to).await?
                }
                Next::Work(Work::Batch(batch)) => {
                    let at_end = batch.at_end.filter(|_| follows);
                    let sent = self.round(batch, None, to).await?;
                    if let Some(end) = at_end {
                        let since = caught_up.map_or_else(Instant::now, |(_, since, _)| since);
                        caught_up = Some((self.beside.mark(), since, end));
                    }
                    sent
                }
                Next::Work(Work::Signal(Signal::Security(_) | Signal::Properties(_)))
                    if removals_only =>
                {
                    Some(())
                }
                // Everything after this needs a run that does more than removals.
                Next::Work(Work::Signal(signal))
                    if removals_only && !matches!(signal, Signal::Release) =>
                {
                    return Ok(Some(()));
                }
                Next::Work(Work::Signal(Signal::CaughtUp(end))) if follows => {
                    caught_up.get_or_insert_with(|| (self.beside.mark(), Instant::now(), end));
                    Some(())
                }
                Next::Work(Work::Signal(signal)) => self.signal(signal, to).await?,
                Next::Brought(brought) => self.round(Batch::default(), Some(*brought), to).await?,
                Next::Revisit => {
                    self.beside.revisit();
                    Some(())
                }
                Next::Look => self.settle_doubt(to).await,
                Next::Ended if stopped && self.beside.has_ready() && last_rounds > 0 => {
                    last_rounds -= 1;
                    self.round(Batch::default(), None, to).await?
                }
                Next::Ended if stopped || follows => return Ok(Some(())),
                Next::Ended => return self.finish(to).await,
            };
            if sent.is_none() {
                return Ok(None);
            }
            // Fetches in flight at the end of the source belong to it, unless they have stalled.
            if let Some((mark, since, end)) = caught_up
                && (!self.beside.is_busy_before(mark) || since.elapsed() >= LONGEST_WAIT)
            {
                caught_up = None;
                self.following = true;
                self.beside.follow();
                if self.signal(Signal::CaughtUp(end), to).await?.is_none() {
                    return Ok(None);
                }
            }
        }
    }

    /// Passes a signal on, in order.
    async fn signal(
        &mut self,
        signal: Signal,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        let at_end = matches!(signal, Signal::CaughtUp(_) | Signal::Holds(_));
        if at_end && self.pipeline.options.mode == Mode::CatchUp {
            if self.finish(to).await?.is_none() {
                return Ok(None);
            }
            if !self.beside.is_empty() {
                // The pipeline was told to stop before all results had arrived.
                return Ok(Some(()));
            }
        }
        match &signal {
            Signal::CaughtUp(_) => self.read_to_end = true,
            Signal::BeginScan(_) => self.beside.start_over(),
            Signal::EndScan { seen: Some(seen), .. } if !seen.blind => {
                self.beside.look_up_unlisted(|id| seen.contains(id));
            }
            _ => {}
        }
        let (removes, released) = (signal.removes(), matches!(signal, Signal::Release));
        if to.send(Work::Signal(signal)).await.is_err() {
            return Ok(None);
        }
        if removes {
            // Later planning must not use what this removes.
            self.number += 1;
            self.beside.replan();
            let number = self.number;
            if self.settled.wait_for(|count| *count >= number).await.is_err() {
                return Ok(None);
            }
        }
        if released {
            self.beside.revisit();
        }
        Ok(self.settle_doubt(to).await)
    }

    /// Marks the events of an interrupted run as emitted, once the feed and all documents that it
    /// left to be fetched were read.
    async fn settle_doubt(&mut self, to: &mpsc::Sender<Work<Prepared>>) -> Option<()> {
        let waits = self.beside.revisits_before(self.first) || self.beside.has_ready();
        if self.told || !self.read_to_end || waits {
            return Some(());
        }
        (self.told, self.doubt) = (true, None);
        to.send(Work::Signal(Signal::Told)).await.ok()
    }

    /// Waits for all fetches, and passes their results on as they arrive.
    async fn finish(
        &mut self,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        self.beside.finish();
        let stop = self.stop.clone();
        while !self.beside.is_empty() && !stop.is_cancelled() {
            let brought = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                brought = self.beside.brought() => brought?,
            };
            if self.round(Batch::default(), Some(brought), to).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Makes a round of a batch and of the results that have arrived, and passes it on.
    async fn round(
        &mut self,
        batch: Batch,
        brought: Option<Brought>,
        to: &mpsc::Sender<Work<Prepared>>,
    ) -> Result<Option<()>, PipelineError> {
        let Some(prepared) = self.prepare(batch, brought, false).await? else { return Ok(None) };
        if prepared.is_empty() {
            self.in_flight.pop_back();
            self.number -= 1;
            return Ok(Some(()));
        }
        Ok(to.send(Work::Batch(prepared)).await.ok())
    }
}
