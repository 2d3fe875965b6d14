//! The contract of [`Target`] as tests that every target passes.
//!
//! A contract looks at a target from outside, as a [`Subject`] shows it, and must not know its kind. This
//! file uses public items only, so that the integration tests run it against a real server too.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::document::{CollectionName, DocumentId, Properties, Revision};
use super::restore::body::{BodyContext, BodyText};
use super::restore::plan::Held;
use super::restore::{Cause, Files, Form, Item, Refused, Standing, Target, TargetError, Writing};

/// Live documents by id, without their histories, with their attachments as base64.
pub type Seen = BTreeMap<String, Value>;

/// One kind of target.
pub trait Subject {
    type Target: Target;

    /// Whether it knows a revision of which it never had the body.
    const KNOWS_ANCESTORS: bool = true;

    /// Whether it outlives a request that is broken off.
    const OUTLIVES_ABORTS: bool = true;

    /// A target that holds nothing yet.
    async fn start() -> Self;

    fn target(&self) -> &Self::Target;

    /// The beginning of ids that it refuses, if it refuses any.
    fn refuses(&self) -> Option<&'static str>;

    /// Targets of this kind that fail every time, with the cause.
    async fn broken(&self) -> Vec<(Self::Target, Cause)>;

    /// The documents of a collection, read without the target.
    async fn look(&self, collection: &CollectionName) -> Seen;
}

/// Bodies as a subject shows them.
pub fn seen(bodies: Vec<Value>) -> Seen {
    let named = bodies.into_iter().map(|mut body| {
        let members = body.as_object_mut().unwrap();
        members.remove("_revisions");
        if let Some(Value::Object(attachments)) = members.get_mut("_attachments") {
            for attachment in attachments.values_mut() {
                *attachment = attachment["data"].clone();
            }
        }
        (body["_id"].as_str().unwrap().to_owned(), body)
    });
    named.collect()
}

/// The files of attachments, by name. They are read from temporary files.
struct InMemory(BTreeMap<String, Vec<u8>>);

impl Files for InMemory {
    fn open(&self, name: &str) -> io::Result<Box<dyn io::Read + Send>> {
        let bytes = self.0.get(name).ok_or_else(|| io::Error::other("the file is gone"))?;
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        io::Seek::rewind(&mut file)?;
        Ok(Box::new(file))
    }
}

/// A document in a revision of one generation, with the hashes before it.
pub fn document(target: &impl Target, id: &str, history: &[&str], value: Value) -> Item {
    attached(target, id, history, value, &[])
}

/// A document with attachments: their names, the lengths that the tree gives, and their files.
fn attached(
    target: &impl Target,
    id: &str,
    history: &[&str],
    value: Value,
    attachments: &[(&str, u64, Option<&[u8]>)],
) -> Item {
    let id = DocumentId::from(id);
    let mut body = json!({"_id": id.as_str(), "_rev": format!("{}-{}", history.len(), history[0])});
    if value == Value::Null {
        body["_deleted"] = json!(true);
    } else {
        body["value"] = value.clone();
    }
    for (name, length, _) in attachments {
        let stub = json!({"content_type": "text/plain", "length": length, "stub": true});
        body["_attachments"][name] = stub;
    }
    let size = |name: &str| attachments.iter().find(|one| one.0 == name).map(|one| one.1);
    let revisions = json!({"start": history.len(), "ids": history}).to_string();
    let deleted = value == Value::Null;
    let beside = BodyContext { history: target.takes_branches().then_some(&revisions), deleted };
    let text =
        BodyText::new(&id, &Bytes::from(body.to_string()), beside, target.stubs(), size).unwrap();
    let files = attachments
        .iter()
        .filter_map(|(name, _, bytes)| bytes.map(|bytes| ((*name).to_owned(), bytes.to_vec())));
    Item {
        path: format!("shelf/{id}"),
        id,
        deleted,
        branch_of: None,
        branches: Vec::new(),
        has_all_branches: false,
        text,
        bytes: 1,
        files: Arc::new(InMemory(files.collect())),
    }
}

/// A document that is written under its revision.
pub fn writing(item: Item) -> Writing {
    Writing { item, form: Form::AsItIs, ends: Vec::new() }
}

pub fn shelf() -> CollectionName {
    "shelf".into()
}

/// A subject with an empty collection.
pub async fn created<S: Subject>() -> S {
    let subject = S::start().await;
    let missing = subject.target().create(&shelf(), Properties::default()).await.unwrap();
    assert!(missing.is_empty(), "{missing:?}");
    subject
}

/// Writes what the target accepts.
async fn write(target: &impl Target, items: Vec<Item>) {
    let batch: Vec<_> = items.into_iter().map(writing).collect();
    assert_eq!(target.write(&shelf(), &batch).await.unwrap(), []);
}

async fn ends_with<S: Subject>(subject: &S, expected: &[(&str, &str, Value)]) {
    subject.target().finish().await.unwrap();
    let found = subject.look(&shelf()).await;
    let short: Vec<_> = found
        .iter()
        .map(|(id, body)| (&**id, body["_rev"].as_str().unwrap(), body["value"].clone()))
        .collect();
    assert_eq!(short, expected);
}

pub async fn a_collection_is_absent_until_it_is_created_and_empty_until_it_is_written<
    S: Subject,
>() {
    let subject = S::start().await;
    let target = subject.target();
    assert_eq!(target.standing(&shelf()).await.unwrap(), Standing::Absent);
    target.create(&shelf(), Properties::default()).await.unwrap();
    if !target.takes_branches() {
        return;
    }
    assert_eq!(target.standing(&shelf()).await.unwrap(), Standing::Empty);
    target.create(&shelf(), Properties::default()).await.expect("a restore may begin again");
    write(target, vec![document(target, "a", &["x"], Value::Null)]).await;
    assert_eq!(target.standing(&shelf()).await.unwrap(), Standing::Present, "of tombstones too");
}

pub async fn documents_are_written_under_their_revisions<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let items = vec![
        document(target, "_design/by", &["d"], json!({"views": {}})),
        document(target, "a", &["x", "w"], json!("ж\u{2028}\n\"")),
        document(target, "b/c?", &["z"], json!([1, 2.5, null])),
    ];
    write(target, items).await;
    let expected = [
        ("_design/by", "1-d", json!({"views": {}})),
        ("a", "2-x", json!("ж\u{2028}\n\"")),
        ("b/c?", "1-z", json!([1, 2.5, null])),
    ];
    ends_with(&subject, &expected).await;
}

pub async fn writing_the_same_again_changes_nothing<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    for _ in 0..2 {
        let dead = document(target, "dead", &["e", "d"], Value::Null);
        write(target, vec![document(target, "a", &["x"], json!(1)), dead]).await;
    }
    ends_with(&subject, &[("a", "1-x", json!(1))]).await;
}

pub async fn batches_are_written_at_the_same_time<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let ids: Vec<String> = (0..target.parallel() * 2).map(|n| format!("d{n}")).collect();
    let batches = ids.chunks(2).map(|ids| {
        let items = ids.iter().map(|id| document(target, id, &["x"], json!(id)));
        write(target, items.collect())
    });
    futures_util::future::join_all(batches).await;
    let expected: Vec<_> = ids.iter().map(|id| (&**id, "1-x", json!(id))).collect();
    ends_with(&subject, &expected).await;
}

pub async fn a_refused_document_is_named_by_its_index_and_the_others_are_written<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let Some(refused) = subject.refuses() else { return };
    let ids = ["a".to_owned(), format!("{refused}-1"), "b".to_owned(), format!("{refused}-2")];
    let batch = ids.map(|id| writing(document(target, &id, &["x"], json!(1))));
    let named = target.write(&shelf(), &batch).await.unwrap();
    let indices: Vec<_> = named.iter().map(|one| one.index).collect();
    assert_eq!(indices, [1, 3]);
    assert!(named.iter().all(|Refused { reason, .. }| !reason.is_empty()), "{named:?}");
    ends_with(&subject, &[("a", "1-x", json!(1)), ("b", "1-x", json!(1))]).await;
}

/// Larger than one piece of a file.
fn large() -> Vec<u8> {
    (0..300_001_u32).map(|n| (n % 251) as u8).collect()
}

pub async fn attachments_arrive_byte_for_byte<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let large = large();
    let attachments =
        [("large.bin", large.len() as u64, Some(&*large)), ("none", 0, Some(&b""[..]))];
    write(target, vec![attached(target, "a", &["x"], json!(1), &attachments)]).await;
    target.finish().await.unwrap();
    let found = subject.look(&shelf()).await;
    let data = |name: &str| STANDARD.decode(found["a"]["_attachments"][name].as_str().unwrap());
    assert!(data("large.bin").unwrap() == large, "other bytes arrived");
    assert_eq!(data("none").unwrap(), b"");
}

pub async fn a_document_whose_file_is_gone_or_changed_is_refused_alone<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    write(target, vec![document(target, "a", &["x"], json!(1))]).await;
    let large = large();
    let mut files = vec![None, Some(&large[1..]), Some(&large[..])];
    if !S::OUTLIVES_ABORTS {
        files.truncate(1);
    }
    for (length, file) in [large.len() as u64, large.len() as u64, 7].into_iter().zip(files) {
        let bad = attached(target, "bad", &["x"], json!(1), &[("f", length, file)]);
        let named = target.write(&shelf(), &[writing(bad)]).await.unwrap();
        assert!(matches!(named[..], [Refused { index: 0, .. }]), "{named:?}");
    }
    write(target, vec![document(target, "b", &["x"], json!(2))]).await;
    ends_with(&subject, &[("a", "1-x", json!(1)), ("b", "1-x", json!(2))]).await;
}

pub async fn what_it_holds_is_compared_in_order<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let items = |revisions: [&[&str]; 4]| {
        let ids = ["dead", "equal", "newer", "other"].into_iter().zip(revisions);
        let value = |id| if id == "dead" { Value::Null } else { json!(1) };
        ids.map(|(id, history)| document(target, id, history, value(id))).collect::<Vec<_>>()
    };
    write(target, items([&["e", "d"], &["x"], &["y", "x"], &["p"]])).await;
    let mut asked = items([&["e", "d"], &["x"], &["x"], &["q"]]);
    asked.push(document(target, "absent", &["x"], json!(1)));
    let held = target.held(&shelf(), &asked, false).await.unwrap();
    if !target.takes_branches() {
        assert_eq!(held, vec![Held::Nothing; 5], "nothing in it can be read again");
        return;
    }
    let winner = |revision: &str, deleted, knows_ours| {
        let revision = revision.into();
        Held::Winner { revision, deleted, knows_ours, others: Default::default() }
    };
    let expected = [
        winner("2-e", true, true),
        winner("1-x", false, true),
        winner("2-y", false, S::KNOWS_ANCESTORS),
        winner("1-p", false, false),
        Held::Nothing,
    ];
    assert_eq!(held, expected);
}

pub async fn branches_are_kept_beside_the_winner_until_they_are_ended<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    if !target.takes_branches() {
        return;
    }
    let ours = || document(target, "a", &["b"], json!("ours"));
    write(target, vec![ours(), document(target, "a", &["z", "y"], json!("theirs"))]).await;
    let held = target.held(&shelf(), &[ours()], true).await.unwrap();
    let [Held::Winner { revision, others, .. }] = &held[..] else { panic!("{held:?}") };
    assert_eq!((revision.as_str(), &others.live[..]), ("2-z", &[Revision::from("1-b")][..]));
    for form in [Form::Nothing, Form::AsItIs] {
        let ends = vec!["2-z".into()];
        let ending = Writing { item: ours(), form, ends };
        assert_eq!(target.write(&shelf(), &[ending]).await.unwrap(), []);
    }
    ends_with(&subject, &[("a", "1-b", json!("ours"))]).await;
}

pub async fn live_documents_are_listed_in_order_to_the_end<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let ids: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
    let mut items: Vec<_> = ids.iter().map(|id| document(target, id, &["x"], json!(1))).collect();
    items.push(document(target, "d5-dead", &["x"], Value::Null));
    write(target, items).await;
    let (mut listed, mut after) = (Vec::new(), None::<DocumentId>);
    loop {
        let page = target.list(&shelf(), after.as_ref()).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        assert!(page.iter().all(|(_, revision)| revision.as_str() == "1-x"), "{page:?}");
        listed.extend(page.into_iter().map(|(id, _)| id.to_string()));
    }
    let expected = if target.takes_branches() { ids } else { Vec::new() };
    assert_eq!(listed, expected);
}

pub async fn a_security_object_is_read_as_it_was_written<S: Subject>() {
    let subject = created::<S>().await;
    let target = subject.target();
    let members = json!({"members": {"names": [], "roles": ["staff"]}});
    let security = json!({"admins": {"names": ["me"], "roles": []}, "members": members["members"]});
    let before = target.security(&shelf()).await.unwrap();
    target.secure(&shelf(), security.to_string().into()).await.unwrap();
    let after = target.security(&shelf()).await.unwrap();
    assert_eq!(before.is_some(), after.is_some());
    if let Some(after) = after {
        assert_eq!(serde_json::from_slice::<Value>(&after).unwrap(), security);
    }
}

pub async fn an_error_that_stays_is_permanent_and_has_its_cause<S: Subject>() {
    let subject = S::start().await;
    for (target, expected) in subject.broken().await {
        let item = document(&target, "a", &["x"], json!(1));
        let written = match target.write(&shelf(), &[writing(item)]).await {
            Ok(_) => target.finish().await,
            Err(error) => Err(error),
        };
        match written {
            Err(TargetError::Permanent { cause, what }) => {
                assert_eq!(cause, expected, "{what}");
                assert!(!what.is_empty());
            }
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

/// Makes each contract a test of each subject.
macro_rules! suite {
    ($($module:ident: $subject:ty;)*) => { $(suite!(@ $module, $subject,
        a_collection_is_absent_until_it_is_created_and_empty_until_it_is_written,
        documents_are_written_under_their_revisions,
        writing_the_same_again_changes_nothing,
        batches_are_written_at_the_same_time,
        a_refused_document_is_named_by_its_index_and_the_others_are_written,
        attachments_arrive_byte_for_byte,
        a_document_whose_file_is_gone_or_changed_is_refused_alone,
        what_it_holds_is_compared_in_order,
        branches_are_kept_beside_the_winner_until_they_are_ended,
        live_documents_are_listed_in_order_to_the_end,
        a_security_object_is_read_as_it_was_written,
        an_error_that_stays_is_permanent_and_has_its_cause,
    );)* };
    (@ $module:ident, $subject:ty, $($contract:ident,)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $contract() {
                super::suite::$contract::<$subject>().await;
            })*
        }
    };
}
