//! Reads every stored byte of a mirror on all processors, in constant memory.
//!
//! One thread lists names, the others read documents. Another process may be writing: a document
//! that looks wrong is read again as long as somebody replaces it.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::VerifyError;
use super::bytes::Unchecked;
use super::document::{Counts, ReadOptions, TextKind};
use super::inventory::{Briefs, Comparison, Coverage, NAMED, coverage, unchecked};
use super::listing::Listing;
use super::progress::{self, VerifyProgress};
use super::reading::{EntryReading, PAUSE, Suspect, TRIES, read_security, settle};
use super::restraint::Restraint;
use crate::archive::{Archive, Problem, ProblemKind, StoredCollection};
use crate::document::CollectionName;
use crate::source::Selection;
use crate::tree::MirrorError;
use crate::tree::layout::{SECURITY, is_neighbour};
use crate::tree::sorted::Sorter;

/// The number of names in a job.
const CHUNK: usize = 64;
/// The number of jobs that wait for each thread.
const WAITING: usize = 2;

/// A collection, and how it is read.
type ToRead = (Arc<dyn StoredCollection>, ReadOptions);

/// The results for a mirror.
#[derive(Debug, Default)]
pub struct TreeFindings {
    pub collections: Vec<FoundCollection>,
    pub problems: Vec<Problem>,
    /// The documents with problems.
    pub suspects: Vec<Suspect>,
    /// The path and SHA-256 of every intact file.
    pub sums: Sorter,
    /// The number of leftovers of interrupted runs in staging.
    pub leftovers: u64,
}

/// The results for a collection.
#[derive(Debug, Default)]
pub struct FoundCollection {
    pub name: String,
    pub counts: Counts,
    pub listing: Listing,
    pub unchecked: Unchecked,
    /// The number of files without a checksum that differ from the inventory.
    pub denied: u64,
    pub coverage: Option<Coverage>,
    /// The files that were read, if there is an inventory to compare them with.
    briefs: Option<Briefs>,
    /// The number of files without a checksum that were reported.
    named: usize,
}

/// Reads the selected collections, or all.
pub fn read(
    archive: &dyn Archive,
    wanted: Option<&Selection>,
    sums: bool,
    progress: Option<&VerifyProgress>,
    restraint: &Restraint,
) -> Result<TreeFindings, VerifyError> {
    let is_wanted = |name: &CollectionName| wanted.is_none_or(|wanted| wanted.wants(name));
    let (all, strays) = archive.collections()?;
    let mut found = TreeFindings::default();
    // A folder may have just been created or removed, before its record is.
    let settled = |look: &dyn Fn() -> Result<bool, MirrorError>| -> Result<bool, MirrorError> {
        for _ in 0..TRIES {
            if look()? {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    };
    let missing = archive.missing(&all)?;
    if !missing.is_empty() && !settled(&|| Ok(archive.missing(&all)?.is_empty()))? {
        found.problems.extend(archive.missing(&all)?);
    }
    found.problems.extend(strays.into_iter().filter(|stray| !is_neighbour(&stray.path)));
    let mut collections = Vec::new();
    for collection in all {
        if settled(&|| collection.is_recorded())? {
            if is_wanted(collection.name()) {
                let attachments = collection.holds_attachments()?;
                collections.push((collection, ReadOptions { attachments, sums }));
            }
        } else {
            let reason = "it is a folder that no run of Plainfold created";
            let path = collection.path().to_owned();
            found.problems.push(Problem::new(ProblemKind::Extra, path, reason));
        }
    }
    found.leftovers = archive.leftovers()?;
    let is_mirror = archive.lineage().is_some();
    let mut inventories = Vec::new();
    for (collection, _) in &collections {
        inventories.push(collection.inventory()?);
    }
    let named = |(collection, _): &ToRead| FoundCollection {
        name: collection.name().to_string(),
        ..FoundCollection::default()
    };
    found.collections = collections.iter().map(named).collect();
    for (found, inventory) in found.collections.iter_mut().zip(&inventories) {
        found.coverage = is_mirror.then(|| coverage(inventory.as_ref()));
        found.briefs = inventory.is_some().then(Briefs::default);
    }
    let steps = begin(&collections, progress);
    let mut found = read_all(&collections, found, &steps, restraint)?;
    steps.end();
    for (number, (collection, how)) in collections.iter().enumerate() {
        let security = (SECURITY.to_owned(), read_security(&**collection, *how)?);
        let unwell = !security.1.is_well();
        keep(&mut found, &**collection, number, [security]).map_err(VerifyError::Temporary)?;
        if unwell {
            let (collection, name) = (collection.name().clone(), SECURITY.to_owned());
            found.suspects.push(Suspect { collection, name, id: None });
        }
    }
    for (number, ((collection, how), inventory)) in collections.iter().zip(inventories).enumerate()
    {
        restraint.check()?;
        let Some(inventory) = inventory else { continue };
        let Some(briefs) = found.collections.get_mut(number).and_then(|one| one.briefs.take())
        else {
            continue;
        };
        let comparison = Comparison { collection: &**collection, how: *how };
        let compared = comparison.run(&inventory, &briefs.finish())?;
        if let Some(found) = found.collections.get_mut(number) {
            let checked = compared.vouched + compared.denied;
            found.counts.unchecked = found.counts.unchecked.saturating_sub(checked);
            found.denied = compared.denied;
        }
        for (path, sum) in compared.sums {
            let kept = found.sums.push(path.as_bytes(), sum.as_bytes());
            kept.map_err(VerifyError::Temporary)?;
        }
        found.problems.extend(compared.problems);
        found.suspects.extend(compared.suspects);
    }
    found.problems.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

/// The steps of collections, by their numbers, if somebody watches.
struct Steps<'a>(Option<(&'a VerifyProgress, Vec<usize>)>);

/// Begins a step for each collection, if somebody watches.
fn begin<'a>(collections: &[ToRead], progress: Option<&'a VerifyProgress>) -> Steps<'a> {
    let begin = |progress: &'a VerifyProgress| {
        let names = collections.iter().map(|(collection, _)| collection.name().as_str());
        let steps = names.map(|name| progress.begin(name, progress::Work::Read, None));
        (progress, steps.collect())
    };
    Steps(progress.map(begin))
}

impl Steps<'_> {
    /// Counts what is to be read, until it is `over`. Counting takes time, so nothing waits for it.
    fn count(&self, collections: &[ToRead], over: &AtomicBool) {
        let Some((progress, steps)) = &self.0 else { return };
        for ((collection, _), step) in collections.iter().zip(steps) {
            let Ok(names) = collection.each_name() else { return };
            let goes_on = || !over.load(Ordering::Relaxed);
            let count = names.take_while(|_| goes_on()).count() as u64;
            if !goes_on() {
                return;
            }
            progress.count(*step, count);
        }
    }

    fn add(&self, number: usize, read: &[(String, EntryReading)]) {
        let Some((progress, steps)) = &self.0 else { return };
        let checked = read.iter().filter_map(|(_, reading)| reading.checked.as_ref());
        let bytes = checked.map(|checked| checked.counts.bytes).sum();
        if let Some(step) = steps.get(number) {
            progress.add(*step, read.len() as u64, bytes);
        }
    }

    fn end(&self) {
        if let Some((progress, steps)) = &self.0 {
            steps.iter().for_each(|step| progress.end(*step));
        }
    }
}

/// A job: a collection by its number, and names in it.
type Work = (usize, Vec<String>);

fn read_all(
    collections: &[ToRead],
    found: TreeFindings,
    steps: &Steps<'_>,
    restraint: &Restraint,
) -> Result<TreeFindings, VerifyError> {
    let threads = restraint.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |threads| threads.max(1),
    );
    let (sender, receiver) = sync_channel::<Work>(threads * WAITING);
    let (receiver, found) = (Mutex::new(receiver), Mutex::new(found));
    let (stop, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let listed = std::thread::scope(|scope| {
        if steps.0.is_some() {
            scope.spawn(|| steps.count(collections, &over));
        }
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(collections, &receiver, &found, &stop, steps, restraint)))
            .collect();
        let listed = list(collections, &found, &stop, |work| sender.send(work).is_ok());
        drop(sender);
        over.store(true, Ordering::Relaxed);
        let mut ended = listed;
        for worker in workers {
            match worker.join() {
                Ok(result) => ended = ended.and(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        ended
    });
    listed?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn list(
    collections: &[ToRead],
    found: &Mutex<TreeFindings>,
    stop: &AtomicBool,
    send: impl Fn(Work) -> bool,
) -> Result<(), VerifyError> {
    for (number, (collection, _)) in collections.iter().enumerate() {
        let mut chunk = Vec::with_capacity(CHUNK);
        for name in collection.each_name()? {
            match name? {
                Ok(name) => chunk.push(name),
                Err(problem) => lock(found).problems.push(problem),
            }
            if chunk.len() == CHUNK && !send((number, std::mem::take(&mut chunk))) {
                return Ok(());
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        if !send((number, chunk)) {
            return Ok(());
        }
    }
    Ok(())
}

fn work(
    collections: &[ToRead],
    queue: &Mutex<Receiver<Work>>,
    found: &Mutex<TreeFindings>,
    stop: &AtomicBool,
    steps: &Steps<'_>,
    restraint: &Restraint,
) -> Result<(), VerifyError> {
    loop {
        let next = lock(queue).recv();
        let Ok((number, names)) = next else { return Ok(()) };
        // After a failure the queue is only emptied, so that the thread that fills it does not wait.
        if stop.load(Ordering::Relaxed) {
            continue;
        }
        let Some((collection, how)) = collections.get(number) else { continue };
        let read = |name: String| {
            restraint.check()?;
            let reading = settle(&**collection, &name, *how);
            restraint.spend(reading.bytes());
            Ok((name, reading))
        };
        let read: Vec<_> = match names.into_iter().map(read).collect() {
            Ok(read) => read,
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                while lock(queue).recv().is_ok() {}
                return Err(error);
            }
        };
        steps.add(number, &read);
        let unwell = read.iter().filter(|(_, reading)| !reading.is_well());
        let suspects: Vec<_> =
            unwell.map(|(name, reading)| reading.suspect(&**collection, name)).collect();
        lock(found).suspects.extend(suspects);
        if let Err(error) = keep(&mut lock(found), &**collection, number, read) {
            stop.store(true, Ordering::Relaxed);
            while lock(queue).recv().is_ok() {}
            return Err(VerifyError::Temporary(error));
        }
    }
}

fn keep(
    found: &mut TreeFindings,
    folder: &dyn StoredCollection,
    number: usize,
    read: impl IntoIterator<Item = (String, EntryReading)>,
) -> io::Result<()> {
    for (name, reading) in read {
        let Some(collection) = found.collections.get_mut(number) else { continue };
        if let Some(briefs) = &mut collection.briefs {
            briefs.push(folder, &name, &reading)?;
        }
        let Some(checked) = reading.take(&mut found.problems) else { continue };
        // If a file has lost its checksum, the inventory may still list it.
        let lost: HashSet<_> = checked.unnoted.iter().collect();
        for (path, sum) in checked.sums.iter().filter(|(path, _)| !lost.contains(path)) {
            found.sums.push(path.as_bytes(), sum.as_bytes())?;
        }
        if collection.briefs.is_none() && !lost.is_empty() {
            let room = NAMED.saturating_sub(collection.named);
            let before = found.problems.len();
            found.problems.extend(unchecked(&checked).into_iter().take(room));
            collection.named += found.problems.len() - before;
            let (collection, id) = (folder.name().clone(), Some(checked.id.clone()));
            let id = id.filter(|_| name != SECURITY);
            found.suspects.push(Suspect { collection, name, id });
        }
        collection.counts += checked.counts;
        if checked.counts.unchecked > 0 {
            collection.unchecked.note(&checked.id);
        }
        if checked.kind == TextKind::Document {
            let (id, revision) = (&checked.id, checked.revision.as_ref());
            collection.listing.push(id, revision, &checked.content)?;
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
