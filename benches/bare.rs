//! The minimum work for a tree like Plainfold's: the reference for its speed.
//!
//! `bare DIR DOCUMENTS SYNCS [SIZE]` creates, one after the other on one thread, a folder for each
//! of DOCUMENTS documents and a temporary file of SIZE bytes (500), and renames the file into the
//! folder. SYNCS times, spread evenly, it makes everything durable with `syncfs`. It reads nothing,
//! keeps no checkpoint, emits no events, and a crash may leave a folder without its document. It
//! prints the number of documents per second.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

struct Task {
    directory: PathBuf,
    documents: usize,
    syncs: usize,
    size: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let task = Task::read(std::env::args().skip(1))?;
    let begun = Instant::now();
    let synced = task.run()?;
    let seconds = begun.elapsed().as_secs_f64();
    let rate = task.documents as f64 / seconds;
    let text = format!(
        "{} documents in {seconds:.3} s, {rate:.0} documents/s, {synced} syncs\n",
        task.documents
    );
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

impl Task {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut next = || arguments.next().ok_or("give: DIR DOCUMENTS SYNCS [SIZE]");
        let directory = PathBuf::from(next()?);
        let (documents, syncs) = (next()?.parse()?, next()?.parse()?);
        let size = next().map_or(Ok(500), |size| size.parse())?;
        Ok(Self { directory, documents, syncs, size })
    }

    fn run(&self) -> Result<usize, Box<dyn Error>> {
        let (tree, staging) = (self.directory.join("documents"), self.directory.join("staging"));
        fs::create_dir_all(&tree)?;
        fs::create_dir_all(&staging)?;
        let (tree, staging) =
            (tree.to_string_lossy().into_owned(), staging.to_string_lossy().into_owned());
        let file_system = File::open(&self.directory)?;
        let text = vec![b'x'; self.size];
        let mut synced = 0;
        for number in 1..=self.documents {
            let folder = format!("{tree}/doc-{number:07}");
            let temporary = format!("{staging}/{number:x}");
            fs::create_dir(&folder)?;
            File::create_new(&temporary)?.write_all(&text)?;
            fs::rename(&temporary, format!("{folder}/document.json"))?;
            if number * self.syncs / self.documents > synced {
                rustix::fs::syncfs(&file_system)?;
                synced += 1;
            }
        }
        Ok(synced)
    }
}
