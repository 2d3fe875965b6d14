//! `plainfold verify`: every stored byte read, and the mirror compared with its source.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::exit::{self, Exit, Usage};
use super::help::{COPY, OUTPUT, SAFETY};
use super::output::{Lines, OutputError, Product, Stream, many};
use super::progress::{Bars, When};
use super::repair::{self, Repairs};
use super::{access, certificate, compare, errand, logging};
use crate::archive::ProblemKind;
use crate::config::{Access, OpenedSource, open_for_repair};
use crate::document::{CollectionName, Kept, Pattern};
use crate::mirror::Stamped;
use crate::runner::Repairer;
use crate::source::Selection;
use crate::verify::{self, Certificate, CollectionReport, Coverage, SourceContent, Verified};

/// What `plainfold verify` takes.
#[derive(Debug, Args)]
pub struct Options {
    /// The mirror's directory or its name in the config, or a directory of RxDB's backup plugin
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Verify only these collections, by name or glob
    #[arg(long, value_name = "GLOB,…", value_delimiter = ',', help_heading = COPY)]
    collections: Vec<String>,

    /// Also compare with this source, and print a certificate.
    ///
    /// SOURCE is as with `plainfold mirror`, but not feed:-.
    #[arg(long, value_name = "SOURCE", help_heading = COPY)]
    against: Option<String>,

    /// Fetch documents with problems again, and verify them again.
    ///
    /// Without --against, each collection's source is the one that the mirror follows.
    #[arg(long, conflicts_with = "manifest", help_heading = SAFETY)]
    repair: bool,

    /// Record every intact or unchecked file in the inventory, with its checksum.
    ///
    /// Use this option for a mirror of an older version, or for a copy whose inventory is missing.
    /// If the checksum beside a file is missing, it is written too.
    #[arg(long, conflicts_with_all = ["repair", "manifest"], help_heading = SAFETY)]
    stamp: bool,

    /// With --repair or --stamp: take the mirror over although another process holds its lock
    #[arg(long, help_heading = SAFETY)]
    take_over: bool,

    /// Exit with 0 even if there is nothing to verify, or a name or a glob matches nothing
    #[arg(long, help_heading = SAFETY)]
    allow_empty: bool,

    #[command(flatten)]
    access: access::Options,

    // Behind the connection, because `--limit` is about the output.
    #[command(flatten)]
    compared: compare::Options,

    /// Write a manifest that `sha256sum -c` reads in DIR; - is standard output
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    manifest: Option<PathBuf>,

    /// When progress bars are shown; `auto` means on a terminal
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto", help_heading = OUTPUT)]
    progress: When,

    /// How the report is printed: text, or one JSON object
    #[arg(long, value_enum, value_name = "FORM", default_value = "text", help_heading = OUTPUT)]
    format: ReportFormat,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Text,
    Json,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    report: &'a verify::Report,
    certificate: Option<&'a Certificate>,
    #[serde(flatten)]
    repairs: Option<&'a Repairs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stamped: Option<&'a BTreeMap<String, Stamped>>,
}

/// What was found and done.
struct Checked {
    verified: Verified,
    /// Whether the manifest was written, if one was wanted.
    manifest: Option<Result<(), OutputError>>,
    certificate: Option<Certificate>,
    repairs: Option<Repairs>,
    stamped: BTreeMap<String, Stamped>,
}

/// Verifies.
pub async fn run(options: Options, logging: &logging::Options) -> anyhow::Result<Exit> {
    let bars = Bars::wanted(options.progress).filter(|_| !logging.is_quiet());
    logging.start(bars.as_ref().map(Bars::footer))?;
    if let Some(exit) = by_its_process(&options).await? {
        return Ok(exit);
    }
    // Before bars are drawn, because a password may be asked for.
    let access = enter(&options)?;
    let progress = Arc::new(verify::VerifyProgress::default());
    let drawing = bars.map(|bars| bars.of_verification(&progress));
    let checked = check(&options, access, drawing.is_some().then_some(progress)).await;
    if let Some(drawing) = drawing {
        drawing.end().await;
    }
    report(&options, checked?, logging.is_quiet())
}

/// Lets the process that works on the mirror repair it, if one does and it can do all that is asked for.
async fn by_its_process(options: &Options) -> anyhow::Result<Option<Exit>> {
    let names = options.collections.as_slice();
    let name = match names {
        [] => None,
        [name] if Pattern::new(name).is_ok_and(|pattern| pattern.is_exact()) => {
            Some(CollectionName::from(name.as_str()))
        }
        _ => return Ok(None),
    };
    match options.repair && options.against.is_none() && !options.take_over {
        true => {
            let as_json = options.format == ReportFormat::Json;
            errand::repair(&options.directory, name.as_ref(), as_json).await
        }
        false => Ok(None),
    }
}

/// How the source is entered that the mirror is compared with.
fn enter(options: &Options) -> Result<Access, Usage> {
    let compared = &options.compared;
    if options.take_over && !options.repair && !options.stamp {
        let what = "--take-over is for a command that changes the mirror: add --repair or --stamp";
        return Err(Usage(what.to_owned()));
    }
    if options.repair && compared.renames() {
        let what = "--repair fetches from the collection that the mirror follows: leave --as out";
        return Err(Usage(what.to_owned()));
    }
    match (&options.against, compared.needs_source()) {
        (Some(source), _) => options.access.lower(source, access::ServerRole::Source),
        (None, Some(option)) => {
            Err(Usage(format!("{option} is for a comparison: name the source with --against")))
        }
        (None, None) => Ok(Access::default()),
    }
}

async fn check(
    options: &Options,
    access: Access,
    progress: Option<Arc<verify::VerifyProgress>>,
) -> anyhow::Result<Checked> {
    let compared = &options.compared;
    let against = match &options.against {
        Some(source) => {
            // What the mirror holds beside the winners may have to be fetched again.
            let kept = if options.repair { Kept::ALL } else { Kept::default() };
            let globs = compared.of_source(&options.collections);
            Some(OpenedSource::open(source, &globs, access, kept).await?)
        }
        None => None,
    };
    let only = against.as_ref().and_then(|source| source.only.clone());
    let how = compared.lower(only)?;
    let collections = match options.collections.is_empty() {
        true => None,
        false => Some(Selection::new(&options.collections).map_err(|bad| Usage(bad.to_string()))?),
    };
    let manifest = match &options.manifest {
        Some(path) => Some(Product::create("the manifest", path)?),
        None => None,
    };
    // From the first look on, so that what was found is what is repaired.
    let repairer = match options.repair || options.stamp {
        true => {
            let command = if options.stamp { "verify --stamp" } else { "verify --repair" };
            Some(lock(options.directory.clone(), command, options.take_over).await?)
        }
        false => None,
    };
    let allow_empty = options.allow_empty;
    let manifested = manifest.is_some();
    let wanted = verify::Options {
        collections,
        manifest: manifested,
        allow_empty,
        progress,
        ..verify::Options::default()
    };
    let mut verified = read(options.directory.clone(), wanted).await?;
    // The report is printed even if the manifest cannot be written.
    let manifest = manifest.map(|file| file.finish(|out| verified.write_manifest(out)));
    let mut there = match &against {
        Some(source) => Some(verified.list(source.store.clone(), &how).await?),
        None => None,
    };
    let compare = |verified: &Verified, there: Option<&SourceContent>| {
        there.map(|there| verified.compare_with(there)).transpose()
    };
    let mut certificate = compare(&verified, there.as_ref())?;
    let mut repairs = None;
    let mut stamped = BTreeMap::new();
    if let Some(repairer) = repairer.as_ref().filter(|_| options.stamp) {
        stamped = tokio::task::block_in_place(|| stamp(repairer, &mut verified))?;
    }
    if let Some(repairer) = repairer.filter(|_| options.repair) {
        let sources = match (&against, &mut there) {
            (Some(source), Some(there)) => repair::Sources::Given(source, there),
            _ => repair::Sources::Recorded(&options.access),
        };
        let done = repair::run(&repairer, &mut verified, certificate.as_ref(), sources).await?;
        repairs = Some(done);
        certificate = compare(&verified, there.as_ref())?;
    }
    Ok(Checked { verified, manifest, certificate, repairs, stamped })
}

/// Prints what was found, and gives the code for it.
fn report(options: &Options, checked: Checked, quiet: bool) -> anyhow::Result<Exit> {
    let Checked { verified, manifest, certificate, repairs, stamped } = checked;
    let (compared, allow_empty) = (&options.compared, options.allow_empty);
    let report = &verified.report;
    let text = match options.format {
        ReportFormat::Json => {
            let (certificate, repairs) = (certificate.as_ref(), repairs.as_ref());
            let stamped = options.stamp.then_some(&stamped);
            let whole = Whole { report, certificate, repairs, stamped };
            Lines::pretty(&whole)?
        }
        ReportFormat::Text => {
            let mut out = Lines::default();
            if let Some(repairs) = &repairs {
                repairs.write(&mut out)?;
            }
            write_report(&mut out, report, compared.limit())?;
            for (collection, Stamped { documents, noted }) in &stamped {
                writeln!(
                    out,
                    "stamped {collection}: {} listed, {} written",
                    many(*documents, "document"),
                    many(*noted, "checksum")
                )?;
            }
            if let Some(certificate) = &certificate {
                certificate::write(&mut out, certificate, compared.limit())?;
                if certificate.equal && !report.problems.is_empty() {
                    let problems = many(report.problems.len(), "problem");
                    writeln!(out, "{problems} in the mirror, listed above")?;
                }
            }
            out
        }
    };
    let to_stdout = options.manifest.as_deref() == Some(Path::new("-"));
    let stream = if to_stdout { Stream::Stderr } else { Stream::Stdout };
    let equal = certificate
        .is_none_or(|certificate| certificate.equal || (allow_empty && certificate.is_empty()));
    let repairs = repairs.unwrap_or_default();
    let empty = report.collections.is_empty() && !allow_empty;
    let exit = match repairs.exit {
        Some(exit) => exit,
        None if repairs.interrupted => Exit::Interrupted,
        None if equal && report.problems.is_empty() && !empty => Exit::Done,
        None => Exit::DocumentsFailed,
    };
    let printed = match quiet && exit == Exit::Done && options.format == ReportFormat::Text {
        true => Ok(()),
        false => stream.report("the report", &text),
    };
    manifest.transpose()?;
    printed?;
    if empty {
        exit::say("nothing was verified: the mirror holds no collection");
    }
    Ok(exit)
}

/// Reads a mirror on a thread that may block.
pub async fn read(directory: PathBuf, options: verify::Options) -> anyhow::Result<Verified> {
    let reading = tokio::task::spawn_blocking(move || verify::verify(&directory, &options));
    Ok(reading.await??)
}

/// Opens a mirror to repair it, on a thread that may block.
async fn lock(
    directory: PathBuf,
    command: &'static str,
    take_over: bool,
) -> anyhow::Result<Repairer> {
    let opening =
        tokio::task::spawn_blocking(move || open_for_repair(&directory, command, take_over));
    Ok(opening.await??)
}

/// Records intact files in the inventories.
fn stamp(
    repairer: &Repairer,
    verified: &mut Verified,
) -> anyhow::Result<BTreeMap<String, Stamped>> {
    let mut stamped = BTreeMap::new();
    for collection in &verified.report.collections {
        let name = collection.collection.as_str();
        let doubtful = verified.doubtful(name)?;
        stamped.insert(name.to_owned(), repairer.stamp(&name.into(), &doubtful)?);
    }
    verified.note_stamped();
    Ok(stamped)
}

fn write_report(out: &mut Lines, report: &verify::Report, limit: usize) -> fmt::Result {
    for problem in report.problems.iter().take(limit) {
        let kind = kebab(problem.kind);
        writeln!(out, "{kind:<12} {}: {}", problem.path, problem.reason)?;
    }
    certificate::write_more(out, report.problems.len(), limit, "problem")?;
    let (mut documents, mut all) = (0, verify::Counts::default());
    for collection in &report.collections {
        documents += collection.side.documents;
        all += collection.counts;
        let name = &collection.collection;
        let tombstones = match collection.counts.tombstones {
            0 => String::new(),
            count => format!("  {}", many(count, "tombstone")),
        };
        let verify::Side { documents, digest } = &collection.side;
        writeln!(out, "{name}  {}  {digest}{tombstones}", many(*documents, "document"))?;
    }
    if let Some(unknown) = &report.unknown {
        writeln!(out, "{unknown}")?;
    }
    let verify::Counts { attachments, bytes, unchecked, .. } = all;
    if unchecked > 0 {
        writeln!(
            out,
            "unchecked: {} without a checksum, so nothing shows whether their bytes are intact. Compare \
             with --against SOURCE, fetch again with --repair, or accept as they are with --stamp",
            many(unchecked, "file"),
        )?;
    }
    let lacks = |one: &&CollectionReport| one.inventory.is_some_and(|it| it != Coverage::Complete);
    for collection in report.collections.iter().filter(lacks) {
        let name = &collection.collection;
        let what = match collection.inventory {
            Some(Coverage::Partial) => "does not cover all documents",
            _ => "is missing",
        };
        writeln!(
            out,
            "{name}: its inventory {what}, so deleted or exchanged documents cannot be found: run \
             `plainfold verify --stamp` to complete it",
        )?;
    }
    if report.leftovers > 0 {
        writeln!(
            out,
            "an interrupted run left {} in .plainfold/staging; the next run removes them",
            many(report.leftovers, "part"),
        )?;
    }
    if report.unremovable > 0 {
        writeln!(
            out,
            "{} of earlier versions could not be removed; see .plainfold/unremovable",
            many(report.unremovable, "part"),
        )?;
    }
    let mut kinds: BTreeMap<ProblemKind, usize> = BTreeMap::new();
    for problem in &report.problems {
        *kinds.entry(problem.kind).or_default() += 1;
    }
    if !kinds.is_empty() {
        let kinds = kinds.iter().map(|(kind, count)| format!("{count} {}", kebab(kind)));
        writeln!(out, "problems by kind: {}", kinds.collect::<Vec<_>>().join(", "))?;
    }
    let problems = match report.problems.len() {
        0 => "no problems found".to_owned(),
        count => many(count, "problem"),
    };
    writeln!(
        out,
        "{problems}: {}, {}, {} read in {:.1} s",
        many(documents, "document"),
        many(attachments, "attachment"),
        many(bytes, "byte"),
        report.seconds,
    )
}

fn kebab(kind: impl Serialize) -> String {
    let value = serde_json::to_value(kind).ok();
    value.as_ref().and_then(|value| value.as_str()).unwrap_or("problem").to_owned()
}
