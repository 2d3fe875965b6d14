//! The modules of `src` as the compiler reads them: what each imports, says and defines. Tests in
//! the source count for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use super::tokens::{Tree, read};
use crate::env::{files, root};

/// All modules, by their path in the crate: `cli::status`. The library itself is the empty path.
pub struct House(BTreeMap<String, Module>);

/// One module, which is one file.
#[derive(Default)]
pub struct Module {
    /// Its file, below `src`.
    pub file: String,
    /// Every name in its code; for a macro, or an attribute, those in it.
    pub words: BTreeSet<String>,
    /// The public types that it defines.
    types: BTreeSet<String>,
    /// The names of the modules below it.
    children: BTreeSet<String>,
    /// What it takes by `use`, by the name that it gets here.
    uses: BTreeMap<String, Use>,
    /// Paths in its code.
    paths: BTreeSet<Vec<String>>,
}

struct Use {
    path: Vec<String>,
    is_public: bool,
}

/// A module, and the item of it that is meant, if it is not the module itself.
type Meant = (String, Option<String>);

/// The house as it stands.
pub static HOUSE: LazyLock<House> = LazyLock::new(House::read);

impl House {
    fn read() -> Self {
        let source = root().join("src");
        let mut modules = BTreeMap::new();
        let mut tests = BTreeSet::new();
        for path in files(&source, &["rs"]) {
            let file = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            let name = file.trim_end_matches(".rs").replace('/', "::");
            let name = match name.as_str() {
                "main" => continue,
                "lib" => String::new(),
                name => name.trim_end_matches("::mod").to_owned(),
            };
            let text = std::fs::read_to_string(&path).unwrap();
            let mut module = Module { file, ..Module::default() };
            module.read(&read(&text), &mut |test| {
                tests.insert(below(&name, test));
            });
            modules.insert(name, module);
        }
        let is_test = |name: &str| {
            tests.iter().any(|test| name == test || name.starts_with(&format!("{test}::")))
        };
        modules.retain(|name, _| !is_test(name));
        Self(modules)
    }

    /// All modules but the library itself.
    pub fn modules(&self) -> impl Iterator<Item = (&str, &Module)> {
        self.0.iter().filter(|(name, _)| !name.is_empty()).map(|(name, one)| (name.as_str(), one))
    }

    /// What a path in a module means; `None` if that belongs to another crate.
    fn meant(&self, module: &str, path: &[String]) -> Option<Meant> {
        let (first, mut rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" => String::new(),
            "self" => module.to_owned(),
            "super" => above(module),
            name => match self.named(module, name)? {
                (at, None) => at,
                item => return Some(item),
            },
        };
        while let Some((name, more)) = rest.split_first() {
            rest = more;
            if name == "super" {
                at = above(&at);
                continue;
            }
            match self.named(&at, name) {
                Some((next, None)) => at = next,
                Some(item) => return Some(item),
                None if self.0.get(&at)?.uses.contains_key(name) => return None,
                None => return Some((at, Some(name.clone()))),
            }
        }
        Some((at, None))
    }

    /// What a name means in a module, if it is taken by `use` or is a module below.
    fn named(&self, module: &str, name: &str) -> Option<Meant> {
        let own = self.0.get(module)?;
        let child = below(module, name);
        if own.children.contains(name) && self.0.contains_key(&child) {
            return Some((child, None));
        }
        let path = &own.uses.get(name)?.path;
        // Such as `use libc;`.
        if path.first().is_some_and(|first| first == name) {
            return None;
        }
        self.meant(module, path)
    }

    /// The modules whose items a module imports. An item that another module only passes on belongs
    /// to the module that defines it. What a module calls in a module that it declares, with that
    /// module's name before it, is no import.
    pub fn imports(&self, module: &str) -> BTreeSet<String> {
        let own = &self.0[module];
        let used = own.uses.values().filter(|used| !used.is_public).map(|used| &used.path);
        let is_import = |path: &&Vec<String>| !own.children.contains(&path[0]);
        let paths = own.paths.iter().filter(is_import);
        let meant = used.chain(paths).filter_map(|path| self.meant(module, path));
        let items = meant.filter(|(at, item)| item.is_some() && at != module);
        items.map(|(at, _)| at).collect()
    }

    /// The groups of modules that import each other in a circle.
    pub fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let imports: BTreeMap<&str, BTreeSet<String>> =
            self.modules().map(|(name, _)| (name, self.imports(name))).collect();
        let reached: BTreeMap<&str, _> =
            imports.keys().map(|name| (*name, reached(&imports, name))).collect();
        let mut circles = BTreeSet::new();
        for (name, all) in reached.iter().filter(|(name, all)| all.contains(*name)) {
            let comes_back = |one: &&&str| reached.get(**one).is_some_and(|all| all.contains(name));
            circles.insert(all.iter().filter(comes_back).map(|one| (*one).to_owned()).collect());
        }
        circles
    }

    /// Where each public type is defined, by its name.
    pub fn types(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (module, one) in self.modules() {
            one.types.iter().for_each(|name| all.entry(name).or_default().push(module));
        }
        all
    }

    /// The types that a module takes by `use` under their own name, with the modules that define
    /// them.
    pub fn taken(&self, module: &str) -> Vec<(String, String)> {
        let uses = self.0[module].uses.iter();
        let meant = uses.filter_map(|(name, used)| Some((name, self.meant(module, &used.path)?)));
        meant
            .filter_map(|(name, (at, item))| (item? == *name).then(|| (name.clone(), at)))
            .collect()
    }
}

impl Module {
    fn read(&mut self, trees: &[Tree], test: &mut impl FnMut(&str)) {
        let mut at = 0;
        while let Some(tree) = trees.get(at) {
            at += 1;
            match tree {
                Tree::Sign('#') => {
                    at += usize::from(matches!(trees.get(at), Some(Tree::Sign('!'))));
                    let Some(Tree::Group(_, attribute)) = trees.get(at) else { continue };
                    at += 1;
                    let words: Vec<&str> = attribute.iter().filter_map(Tree::word).collect();
                    let is_test = |tree: &Tree| matches!(tree, Tree::Group(_, of) if of.iter().any(|one| one.word() == Some("test")));
                    match words[..] {
                        ["cfg", ..] if attribute.iter().any(is_test) => {
                            at += item(&trees[at..], test)
                        }
                        _ => self.read(attribute, test),
                    }
                }
                Tree::Group(_, trees) => self.read(trees, test),
                Tree::Word(word) => {
                    let next = trees.get(at).and_then(Tree::word);
                    let is_public = is_public(&trees[..at - 1]);
                    match (word.as_str(), next) {
                        ("use", _) => {
                            let end = trees[at..].iter().position(|tree| tree.is(';'));
                            let end = at + end.unwrap_or_default();
                            self.take(&mut Vec::new(), &trees[at..end], is_public);
                            at = end;
                        }
                        ("mod", Some(name)) => {
                            self.children.insert(name.to_owned());
                        }
                        ("struct" | "enum" | "trait" | "type" | "union", Some(name))
                            if is_plainly_public(&trees[..at - 1]) =>
                        {
                            self.types.insert(name.to_owned());
                        }
                        _ => at += self.path(&trees[at - 1..]),
                    }
                    self.words.insert(word.clone());
                }
                Tree::Sign(_) | Tree::Literal => {}
            }
        }
    }

    /// Notes the path at the beginning, and gives the number of its tokens after the first one.
    fn path(&mut self, trees: &[Tree]) -> usize {
        let mut path: Vec<String> =
            trees.first().and_then(Tree::word).map(str::to_owned).into_iter().collect();
        let mut at = 1;
        while let [first, second, third, ..] = &trees[at..]
            && first.is(':')
            && second.is(':')
            && let Some(name) = third.word()
        {
            self.words.insert(name.to_owned());
            path.push(name.to_owned());
            at += 3;
        }
        if path.len() > 1 {
            self.paths.insert(path);
        }
        at - 1
    }

    /// Notes what a `use` takes.
    fn take(&mut self, before: &mut Vec<String>, trees: &[Tree], is_public: bool) {
        for part in trees.split(|tree| tree.is(',')) {
            let names: Vec<String> =
                part.iter().filter_map(Tree::word).map(str::to_owned).collect();
            self.words.extend(names.iter().cloned());
            let (names, alias) = match names.as_slice() {
                [path @ .., word, alias] if word == "as" => (path, Some(alias.clone())),
                path => (path, None),
            };
            let length = before.len();
            let is_new = |name: &&String| length == 0 || *name != "self";
            before.extend(names.iter().filter(is_new).cloned());
            match part.last() {
                Some(Tree::Group('{', trees)) => self.take(before, trees, is_public),
                _ => {
                    if let Some(name) = alias.or_else(|| before.last().cloned()) {
                        self.uses.insert(name, Use { path: before.clone(), is_public });
                    }
                }
            }
            before.truncate(length);
        }
    }
}

/// All modules that one imports, or that these import.
fn reached<'a>(imports: &'a BTreeMap<&str, BTreeSet<String>>, from: &str) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        for import in imports.get(name).into_iter().flatten() {
            if reached.insert(import.as_str()) {
                next.push(import);
            }
        }
    }
    reached
}

/// The number of tokens of the item of tests that begins here; names it if it is a module.
fn item(trees: &[Tree], test: &mut impl FnMut(&str)) -> usize {
    let ends = |tree: &Tree| tree.is(';') || matches!(tree, Tree::Group('{', _));
    let length = trees.iter().position(ends).map_or(trees.len(), |end| end + 1);
    for pair in trees[..length].windows(2) {
        if let (Some("mod"), Some(name)) = (pair[0].word(), pair[1].word()) {
            test(name);
        }
    }
    length
}

/// Whether what stands before an item makes it public, if only for a part of the crate.
fn is_public(before: &[Tree]) -> bool {
    match before {
        [.., word, Tree::Group('(', _)] | [.., word] => word.word() == Some("pub"),
        [] => false,
    }
}

/// Whether it makes the item public without limits.
fn is_plainly_public(before: &[Tree]) -> bool {
    before.last().and_then(Tree::word) == Some("pub")
}

fn below(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

fn above(module: &str) -> String {
    module.rsplit_once("::").map_or(String::new(), |(above, _)| above.to_owned())
}
