//! A comparison as text: the differences up to a limit, then a summary.

use std::collections::BTreeMap;
use std::fmt;

use super::output::{Lines, many};
use crate::verify::{Certificate, CollectionCertificate, Depth, DifferenceKind};

/// Writes the differences, one per line, and then what was compared with what.
pub fn write(out: &mut Lines, certificate: &Certificate, limit: usize) -> fmt::Result {
    write_differences(out, certificate, limit)?;
    writeln!(out)?;
    match (certificate.equal, certificate.not_compared.is_empty()) {
        (false, _) => writeln!(out, "DIFFERENT")?,
        (true, true) => writeln!(out, "EQUAL")?,
        (true, false) => writeln!(out, "EQUAL in {}", compared(certificate))?,
    }
    for (side, place) in [("here", &certificate.here), ("there", &certificate.there)] {
        writeln!(out, "  {side:<9} {}", place.name)?;
        if let Some(lineage) = &place.lineage {
            writeln!(out, "  {:<9} {lineage}", "lineage")?;
        }
    }
    writeln!(out, "  {:<9} {}", "at", certificate.at)?;
    write_depth(out, certificate)?;
    for collection in &certificate.collections {
        writeln!(out, "  {}", name(collection))?;
        for (side, value) in [("here", &collection.here), ("there", &collection.there)] {
            let documents = many(value.documents, "document");
            writeln!(out, "    {side:<8} {documents}  {}", value.digest)?;
        }
        if !collection.differ.is_empty() {
            writeln!(out, "    {:<8} {}", "differ", kinds(&collection.differ))?;
        }
        if let Some(position) = &collection.position {
            writeln!(out, "    {:<8} {}", "position", position)?;
        }
    }
    write_total(out, certificate)?;
    if certificate.here.lineage.is_none() || certificate.there.lineage.is_some() {
        return Ok(());
    }
    let has = |wanted: &dyn Fn(DifferenceKind) -> bool| {
        certificate.collections.iter().flat_map(|one| one.differ.keys()).any(|kind| wanted(*kind))
    };
    if has(&|kind| kind != DifferenceKind::Bytes) {
        writeln!(out, "The mirror may just be behind: run `plainfold mirror`, and compare again.")?;
    }
    if has(&|kind| kind == DifferenceKind::Bytes) {
        writeln!(
            out,
            "Some documents have other bytes at the same revision: `plainfold verify \
                       --repair` fetches them again."
        )?;
    }
    Ok(())
}

/// Writes what differs, a line each, up to a limit, and how much more there is.
pub fn write_differences(out: &mut Lines, certificate: &Certificate, limit: usize) -> fmt::Result {
    for difference in certificate.differences.iter().take(limit) {
        let (kind, collection) = (word(difference.kind), &difference.collection);
        let revisions = match (&difference.here, &difference.there) {
            (Some(here), Some(there)) if here != there => format!("  here {here}  there {there}"),
            (Some(revision), _) | (None, Some(revision)) => format!("  {revision}"),
            (None, None) => String::new(),
        };
        writeln!(out, "{kind:<12} {collection}  {}{revisions}", difference.id)?;
    }
    write_more(out, certificate.differences.len(), limit, "difference")?;
    for row in certificate.unreadable.iter().take(limit) {
        writeln!(out, "{:<12} {}", "unreadable", row)?;
    }
    write_more(out, certificate.unreadable.len(), limit, "unreadable row")
}

/// Says how much more there is than a limit allows to list.
pub fn write_more(out: &mut Lines, count: usize, limit: usize, what: &str) -> fmt::Result {
    match count.checked_sub(limit) {
        None | Some(0) => Ok(()),
        Some(more) => {
            writeln!(out, "… and {}: --limit 0 or --format json lists all", many(more, what))
        }
    }
}

/// Writes the summary of a comparison: counts by kind, for each collection that differs and in
/// total.
pub fn write_summary(out: &mut Lines, certificate: &Certificate) -> fmt::Result {
    if !certificate.differences.is_empty() || !certificate.unreadable.is_empty() {
        writeln!(out)?;
    }
    for collection in certificate.collections.iter().filter(|one| !one.differ.is_empty()) {
        writeln!(out, "{}: {}", name(collection), kinds(&collection.differ))?;
    }
    write_depth(out, certificate)?;
    write_total(out, certificate)
}

fn write_depth(out: &mut Lines, certificate: &Certificate) -> fmt::Result {
    let unchecked = certificate.unchecked;
    let files = many(unchecked, "file");
    match certificate.depth {
        Depth::Bytes => writeln!(out, "  {:<9} every byte", "depth"),
        Depth::Revision if unchecked == 0 => {
            writeln!(out, "  {:<9} by revision, {files} unchecked", "depth")
        }
        Depth::Revision => writeln!(
            out,
            "  {:<9} by revision, {files} unchecked: their documents were compared byte by byte",
            "depth"
        ),
    }
}

fn write_total(out: &mut Lines, certificate: &Certificate) -> fmt::Result {
    for name in &certificate.not_compared {
        writeln!(out, "  {} was not compared: the source does not name it", name)?;
    }
    let others = match certificate.left_out.len() {
        0 => None,
        1 => Some("1 other collection, which was not compared: --all compares it".to_owned()),
        more => {
            Some(format!("{more} other collections, which were not compared: --all compares them"))
        }
    };
    if let Some(others) = others {
        let there = if certificate.there.is_mirror { "other mirror" } else { "source" };
        writeln!(out, "the {there} holds {others}")?;
    }
    let collections = many(certificate.collections.len(), "collection");
    let not_compared = match certificate.not_compared.len() {
        0 => String::new(),
        count => format!("; {count} not compared"),
    };
    let differing = certificate.collections.iter().filter(|one| !one.differ.is_empty()).count();
    let unreadable = match certificate.unreadable.len() {
        0 => String::new(),
        rows => format!(", {}", many(rows, "unreadable row")),
    };
    let differences = many(certificate.differences.len(), "difference");
    match differing {
        0 if certificate.collections.is_empty() => writeln!(out, "nothing was compared"),
        0 => {
            let compared = compared(certificate);
            writeln!(out, "{differences}{unreadable} in {compared}{not_compared}")
        }
        _ => {
            let mut all = BTreeMap::new();
            for (kind, count) in certificate.collections.iter().flat_map(|one| &one.differ) {
                *all.entry(*kind).or_default() += count;
            }
            let kinds = kinds(&all);
            writeln!(
                out,
                "{differences}{unreadable} in {differing} of {collections}: {kinds}{not_compared}"
            )
        }
    }
}

/// The number of collections that were compared, of those of the mirror if they were not all.
fn compared(certificate: &Certificate) -> String {
    let compared = certificate.collections.len();
    match certificate.not_compared.len() {
        0 => many(compared, "collection"),
        others => format!("{compared} of {} collections", compared + others),
    }
}

/// The name of a collection, and the one that it has in the other place.
fn name(collection: &CollectionCertificate) -> String {
    let own = &collection.collection;
    match &collection.renamed {
        Some(renamed) => format!("{own} as {renamed}"),
        None => own.clone(),
    }
}

fn kinds(counts: &BTreeMap<DifferenceKind, u64>) -> String {
    let words = counts.iter().map(|(kind, count)| format!("{count} {}", word(*kind)));
    words.collect::<Vec<_>>().join(", ")
}

fn word(kind: DifferenceKind) -> &'static str {
    match kind {
        DifferenceKind::OnlyHere => "only-here",
        DifferenceKind::OnlyThere => "only-there",
        DifferenceKind::Revision => "revision",
        DifferenceKind::Bytes => "bytes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_in_the_singular_and_the_plural() {
        assert_eq!((many(1, "file"), many(0, "file")), ("1 file".to_owned(), "0 files".to_owned()));
        let mut out = Lines::default();
        write_more(&mut out, 3, 3, "problem").unwrap();
        assert_eq!(out.as_str(), "");
        write_more(&mut out, 4, 3, "problem").unwrap();
        assert!(out.as_str().starts_with("… and 1 problem:"), "{out:?}");
    }
}
