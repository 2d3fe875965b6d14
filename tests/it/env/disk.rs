//! A disk that loses everything that was not synced: reads the record of a run
//! (`src/trial/recorder.rs`), and builds the trees that a power loss at any moment of it may leave.
//!
//! The model guarantees what POSIX does, and in addition, as ext4 does, that a rename is one step. A
//! name is durable when one of its folders was synced after the change, the bytes of a file when the
//! file was synced; `syncfs` covers everything before it. Any part of everything else may be
//! present, in any order, except that a name's later change never appears without its earlier ones.
//! Bytes may be missing, truncated, or zeros.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::random::Random;

/// A file or a folder. Inode numbers come again, these do not.
type Object = usize;

/// A name in a folder.
type Place = (Object, String);

/// A run's record, and the tree that it began with.
pub struct Disk {
    record: PathBuf,
    root: Object,
    /// Whether each object is a folder.
    folders: Vec<bool>,
    /// What was durable when the run began.
    names: BTreeMap<Place, Object>,
    bytes: HashMap<Object, (Vec<u8>, SystemTime)>,
    operations: Vec<Operation>,
}

enum Operation {
    /// Names that change in one step.
    Names(Vec<(Place, Option<Object>)>),
    Write(Object, Vec<u8>, SystemTime),
    Sync(u64, Option<Object>),
    Synced(u64),
    Commit(u64),
}

/// How much of the data that is not durable has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    Nothing,
    Everything,
    /// Every name, and no byte: what a file system with delayed allocation likes to do.
    NamesOnly,
    /// Any part.
    Some,
}

/// A tree that a power loss has left: its files by their paths, and folders, which are `None`.
pub struct Left {
    entries: BTreeMap<PathBuf, Option<(Vec<u8>, SystemTime)>>,
    /// The state's last commit of the run; `None` is the state before it.
    pub commit: Option<u64>,
}

impl Left {
    /// The identity of a tree: names, bytes and the commit, without times.
    pub fn hash(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        self.commit.hash(&mut hasher);
        for (path, content) in &self.entries {
            (path, content.as_ref().map(|(bytes, _)| bytes)).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Entries outside the model: the lock's text, and the state, whose copies were kept.
fn is_apart(path: &Path) -> bool {
    let ours = path.parent().is_some_and(|parent| parent.ends_with(".plainfold"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ours && (name == "lock" || name.starts_with("state"))
}

impl Disk {
    /// The tree beneath `mirror`, all of it durable, before a run.
    pub fn before(mirror: &Path) -> (Self, HashMap<u64, Object>) {
        let mut disk = Self {
            record: PathBuf::new(),
            root: 0,
            folders: Vec::new(),
            names: BTreeMap::new(),
            bytes: HashMap::new(),
            operations: Vec::new(),
        };
        let mut inodes: HashMap<u64, Object> = HashMap::new();
        let walk = walkdir::WalkDir::new(mirror).into_iter();
        for entry in walk.filter_entry(|entry| !is_apart(entry.path())) {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let known = inodes.get(&metadata.ino()).copied();
            let object = known.unwrap_or_else(|| disk.new_object(metadata.is_dir()));
            inodes.insert(metadata.ino(), object);
            if metadata.is_file() {
                let bytes = fs::read(entry.path()).unwrap();
                disk.bytes.insert(object, (bytes, metadata.modified().unwrap()));
            }
            if entry.depth() > 0 {
                let parent = entry.path().parent().unwrap().metadata().unwrap().ino();
                let name = entry.file_name().to_str().unwrap().to_owned();
                disk.names.insert((inodes[&parent], name), object);
            }
        }
        (disk, inodes)
    }

    /// Reads what the run has recorded.
    pub fn read(mut self, mut inodes: HashMap<u64, Object>, record: &Path) -> Self {
        self.record = record.to_owned();
        let mut now = self.names.clone();
        for line in fs::read_to_string(record).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let number = |key: &str| line[key].as_u64().unwrap();
            let place = |key: &str| -> Place {
                let inode = line[key][0].as_u64().unwrap();
                (inodes[&inode], line[key][1].as_str().unwrap().to_owned())
            };
            let operation = match line["op"].as_str().unwrap() {
                "make" => {
                    let place = place("in");
                    let object = self.new_object(line["folder"].as_bool().unwrap());
                    inodes.insert(number("inode"), object);
                    Operation::Names(vec![(place, Some(object))])
                }
                "rename" => {
                    let moved = now[&place("in")];
                    Operation::Names(vec![(place("in"), None), (place("to"), Some(moved))])
                }
                "exchange" => {
                    let (one, other) = (now[&place("in")], now[&place("to")]);
                    Operation::Names(vec![(place("in"), Some(other)), (place("to"), Some(one))])
                }
                "link" => Operation::Names(vec![(place("to"), Some(now[&place("in")]))]),
                "remove" => Operation::Names(vec![(place("in"), None)]),
                "write" => {
                    let bytes = line["bytes"].as_array().unwrap().iter();
                    let bytes = bytes.map(|byte| byte.as_u64().unwrap() as u8).collect();
                    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(number("at"));
                    Operation::Write(inodes[&number("inode")], bytes, at)
                }
                "sync" => {
                    let what = line["inode"].as_u64().map(|inode| inodes[&inode]);
                    Operation::Sync(number("number"), what)
                }
                "synced" => Operation::Synced(number("number")),
                "commit" => Operation::Commit(number("state")),
                other => panic!("the record speaks of {other}"),
            };
            if let Operation::Names(changes) = &operation {
                apply(&mut now, changes);
            }
            self.operations.push(operation);
        }
        self
    }

    /// The number of moments at which the power may go.
    pub fn moments(&self) -> usize {
        self.operations.len() + 1
    }

    /// How many times the state was committed.
    pub fn commits(&self) -> usize {
        self.operations.iter().filter(|one| matches!(one, Operation::Commit(_))).count()
    }

    /// The same run on a disk whose syncs do nothing.
    pub fn without_syncs(self) -> Self {
        let mut operations = self.operations;
        operations.retain(|one| !matches!(one, Operation::Synced(_)));
        Self { operations, ..self }
    }

    fn new_object(&mut self, folder: bool) -> Object {
        self.folders.push(folder);
        self.folders.len() - 1
    }

    /// Which of the first `moment` operations are durable by then.
    fn durable(&self, moment: usize) -> Vec<bool> {
        let done = &self.operations[..moment];
        let ended: HashSet<u64> = done
            .iter()
            .filter_map(
                |one| if let Operation::Synced(number) = one { Some(*number) } else { None },
            )
            .collect();
        let mut durable = vec![false; moment];
        let (mut all, mut synced) = (false, HashSet::new());
        // The earlier changes of a durable name are durable too.
        let mut below: HashSet<&Place> = HashSet::new();
        for (at, operation) in done.iter().enumerate().rev() {
            durable[at] = match operation {
                Operation::Sync(number, what) if ended.contains(number) => {
                    match what {
                        None => all = true,
                        Some(object) => drop(synced.insert(*object)),
                    }
                    true
                }
                Operation::Names(changes) => {
                    let covered = |(place, _): &(Place, _)| {
                        synced.contains(&place.0) || below.contains(place)
                    };
                    let durable = all || changes.iter().any(covered);
                    if durable {
                        below.extend(changes.iter().map(|(place, _)| place));
                    }
                    durable
                }
                Operation::Write(object, ..) => all || synced.contains(object),
                _ => true,
            };
        }
        durable
    }

    /// The tree after a power loss when the first `moment` operations were done.
    pub fn cut(&self, moment: usize, reached: Reached, chance: &mut Random) -> Left {
        let durable = self.durable(moment);
        let odds = chance.below(9) + 1;
        let (mut names, mut bytes) = (self.names.clone(), self.bytes.clone());
        let mut broken: HashSet<&Place> = HashSet::new();
        let mut commit = None;
        for (operation, durable) in self.operations[..moment].iter().zip(durable) {
            match operation {
                Operation::Names(changes) => {
                    let kept = match reached {
                        Reached::Nothing => false,
                        Reached::Everything | Reached::NamesOnly => true,
                        Reached::Some => chance.below(10) < odds,
                    };
                    let stands = changes.iter().all(|(place, _)| !broken.contains(place));
                    if durable || (kept && stands) {
                        apply(&mut names, changes);
                    } else {
                        broken.extend(changes.iter().map(|(place, _)| place));
                    }
                }
                Operation::Write(object, written, at) => {
                    let (held, time) = bytes.entry(*object).or_insert_with(|| (Vec::new(), *at));
                    *time = *at;
                    let part = chance.below(written.len() as u64) as usize;
                    match reached {
                        _ if durable => held.extend_from_slice(written),
                        Reached::Everything => held.extend_from_slice(written),
                        Reached::Nothing | Reached::NamesOnly => {}
                        Reached::Some => match chance.below(4) {
                            0 => held.extend_from_slice(written),
                            1 => held.extend_from_slice(&written[..part]),
                            2 => held.extend(written.iter().map(|_| 0)),
                            _ => {}
                        },
                    }
                }
                Operation::Commit(number) => commit = Some(*number),
                Operation::Sync(..) | Operation::Synced(_) => {}
            }
        }
        let mut entries = BTreeMap::new();
        self.collect(self.root, Path::new(""), &names, &bytes, &mut entries);
        Left { entries, commit }
    }

    fn collect(
        &self,
        folder: Object,
        path: &Path,
        names: &BTreeMap<Place, Object>,
        bytes: &HashMap<Object, (Vec<u8>, SystemTime)>,
        entries: &mut BTreeMap<PathBuf, Option<(Vec<u8>, SystemTime)>>,
    ) {
        let within = (folder, String::new())..(folder + 1, String::new());
        for ((_, name), object) in names.range(within) {
            let path = path.join(name);
            if self.folders[*object] {
                entries.insert(path.clone(), None);
                self.collect(*object, &path, names, bytes, entries);
            } else {
                let none = || (Vec::new(), SystemTime::now());
                entries.insert(path, Some(bytes.get(object).cloned().unwrap_or_else(none)));
            }
        }
    }

    /// Makes the tree, with the state of its last commit, or that in `before`, a copy of the mirror from
    /// before the run.
    pub fn make(&self, left: &Left, before: &Path, to: &Path) {
        fs::create_dir_all(to.join(".plainfold")).unwrap();
        for (path, content) in &left.entries {
            let path = to.join(path);
            match content {
                None => fs::create_dir_all(&path).unwrap(),
                Some((bytes, time)) => {
                    fs::write(&path, bytes).unwrap();
                    fs::File::options()
                        .append(true)
                        .open(&path)
                        .unwrap()
                        .set_modified(*time)
                        .unwrap();
                }
            }
        }
        let state = match left.commit {
            Some(number) => {
                let mut copy = self.record.clone().into_os_string();
                copy.push(format!(".state-{number}"));
                PathBuf::from(copy)
            }
            None => before.join(".plainfold"),
        };
        copy_state(&state, &to.join(".plainfold"));
    }
}

fn apply(names: &mut BTreeMap<Place, Object>, changes: &[(Place, Option<Object>)]) {
    for (place, object) in changes {
        match object {
            Some(object) => drop(names.insert(place.clone(), *object)),
            None => drop(names.remove(place)),
        }
    }
}

/// Copies the state between two folders like `.plainfold`; there may be none.
pub fn copy_state(from: &Path, to: &Path) {
    let state = from.join("state");
    if state.exists() {
        fs::create_dir_all(to.join("state")).unwrap();
        for entry in fs::read_dir(&state).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join("state").join(entry.file_name())).unwrap();
            }
        }
    }
    let mark = from.join("state.high-water");
    if mark.exists() {
        fs::copy(&mark, to.join("state.high-water")).unwrap();
    }
}
