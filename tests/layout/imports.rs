//! Reads the imports of a crate from its source: `use` declarations and inline paths (`crate::time::plus(..)`, also within
//! macros), each resolved through re-exports to the file that defines the name. Code that only tests compile is left out.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token, UseTree, Visibility};

/// The sources of a crate by their path (`src/key.rs`).
pub type Sources = BTreeMap<String, String>;

/// What a file imports from another file of its crate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// Modules, each by its path below the crate's root.
    pub from: Vec<String>,
    pub to: Vec<String>,
    pub file: String,
    pub line: usize,
    /// As written, without braces: `crate::time::plus`.
    pub path: String,
}

/// A path to another crate, with the names of `use` declarations written out: `kube::api::Api`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct External {
    pub file: String,
    pub line: usize,
    pub path: Vec<String>,
}

/// All imports of a crate.
#[derive(Debug, Default)]
pub struct Imports {
    pub internal: BTreeSet<Import>,
    pub external: BTreeSet<External>,
    /// The file of each module that has one of its own.
    pub files: BTreeMap<Vec<String>, String>,
}

/// Reads the library in a folder, from its `lib.rs`, and the program beside it, if there is one: `main.rs`, which knows the
/// library by `name` and counts as a module `main` of it.
pub fn imports_of(folder: &str, name: &str, sources: &Sources) -> Imports {
    let mut tree = Tree { sources, modules: Vec::new(), library: name };
    tree.read(&format!("{folder}/lib.rs"), folder, Vec::new(), None);
    let program = format!("{folder}/main.rs");
    if sources.contains_key(&program) {
        tree.read(&program, folder, vec!["main".to_owned()], None);
    }
    tree.imports()
}

#[derive(Default)]
struct Module {
    path: Vec<String>,
    file: String,
    parent: Option<usize>,
    /// In a file of its parent's.
    inline: bool,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    uses: Vec<Use>,
    references: Vec<Reference>,
}

/// One name of a `use` declaration.
struct Use {
    path: Vec<String>,
    /// `None` for `*`.
    name: Option<String>,
    line: usize,
    /// Others may import the name from here. This file depends on it only if it uses the name itself.
    re_export: bool,
}

/// A path within code.
struct Reference {
    path: Vec<String>,
    line: usize,
}

struct Tree<'a> {
    sources: &'a Sources,
    modules: Vec<Module>,
    library: &'a str,
}

enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
    External(Vec<String>),
}

impl Tree<'_> {
    /// Reads a file and the modules below it, whose files are in `folder`.
    fn read(&mut self, file: &str, folder: &str, path: Vec<String>, parent: Option<usize>) -> usize {
        let text = self.sources.get(file).unwrap_or_else(|| panic!("no file {file}"));
        let syntax = syn::parse_file(text).unwrap_or_else(|error| {
            panic!("{file}:{}: {error}", error.span().start().line);
        });
        let module = Module { path, file: file.to_owned(), parent, ..Module::default() };
        self.add(module, &syntax.items, folder)
    }

    fn add(&mut self, module: Module, items: &[Item], folder: &str) -> usize {
        let (path, file) = (module.path.clone(), module.file.clone());
        let index = self.modules.len();
        self.modules.push(module);
        let mut reader = ReferenceReader::default();
        for item in items.iter().filter(|item| !only_for_tests(attributes(item))) {
            if let Item::Mod(child) = item {
                let name = child.ident.to_string();
                let path = [&path[..], std::slice::from_ref(&name)].concat();
                let below = format!("{folder}/{name}");
                let child = match &child.content {
                    Some((_, items)) => {
                        let parent = Some(index);
                        let module =
                            Module { path, file: file.clone(), parent, inline: true, ..Module::default() };
                        self.add(module, items, &below)
                    }
                    None => {
                        let [flat, nested] = [format!("{below}.rs"), format!("{below}/mod.rs")];
                        let file = if self.sources.contains_key(&flat) { flat } else { nested };
                        self.read(&file, &below, path, Some(index))
                    }
                };
                self.modules[index].children.insert(name, child);
            } else {
                self.modules[index].items.extend(name_of(item));
                reader.visit_item(item);
            }
        }
        self.modules[index].uses = reader.uses;
        self.modules[index].references = reader.references;
        index
    }

    fn imports(&self) -> Imports {
        let mut imports = Imports::default();
        for (index, module) in self.modules.iter().enumerate() {
            if !module.inline {
                imports.files.insert(module.path.clone(), module.file.clone());
            }
            let mut note = |path: &[String], line: usize, target: Option<Target>| {
                let (file, path) = (module.file.clone(), path.to_vec());
                match target {
                    Some(Target::External(path)) => {
                        imports.external.insert(External { file, line, path });
                    }
                    Some(Target::Module(to) | Target::Item(to)) if self.modules[to].file != file => {
                        let (from, to) = (self.own_file(index), self.own_file(to));
                        imports.internal.insert(Import { from, to, file, line, path: path.join("::") });
                    }
                    _ => {}
                }
            };
            for it in &module.uses {
                let target = self.resolve(index, &it.path, 0);
                if !it.re_export || matches!(target, Some(Target::External(_))) {
                    note(&it.path, it.line, target);
                }
            }
            for it in &module.references {
                // A single name may be a variable, but never a module.
                let known = it.path.len() > 1 || self.brings(index, &it.path[0], 0);
                note(&it.path, it.line, known.then(|| self.resolve(index, &it.path, 0)).flatten());
            }
        }
        imports
    }

    /// The path of the module to which the file of this one belongs.
    fn own_file(&self, index: usize) -> Vec<String> {
        let module = &self.modules[index];
        match module.parent {
            Some(parent) if module.inline => self.own_file(parent),
            _ => module.path.clone(),
        }
    }

    /// Whether a `use` declaration of the module brings this name.
    fn brings(&self, module: usize, name: &str, depth: usize) -> bool {
        let has = |glob: usize| self.modules[glob].items.contains(name) || self.brings(glob, name, depth + 1);
        let by_glob = |it: &Use| match self.resolve(module, &it.path, 0) {
            Some(Target::Module(glob)) => depth < 4 && glob != module && has(glob),
            _ => false,
        };
        self.modules[module].uses.iter().any(|it| match &it.name {
            Some(brought) => brought == name,
            None => by_glob(it),
        })
    }

    /// What a path in this module means. `None`: no more than a local name.
    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" if self.modules[module].path.first().is_some_and(|it| it == "main") => None,
            "crate" => self.within(0, rest, depth),
            "self" => self.within(module, rest, depth),
            "super" => self.within(self.modules[module].parent?, rest, depth),
            "Self" => None,
            name if name == self.library && self.modules[module].path == ["main"] => {
                self.within(0, rest, depth)
            }
            _ => self
                .lookup(module, path, depth)
                .or_else(|| (path.len() > 1 || depth > 0).then(|| Target::External(path.to_vec()))),
        }
    }

    /// What a path means that begins in this module.
    fn within(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        match path.first().map(String::as_str) {
            None | Some("self") => Some(Target::Module(module)),
            Some("super") => self.within(self.modules[module].parent?, &path[1..], depth),
            // What a macro defines is not seen.
            Some(_) => self.lookup(module, path, depth).or(Some(Target::Item(module))),
        }
    }

    /// The same, if the module has such a name.
    fn lookup(&self, module: usize, path: &[String], depth: usize) -> Option<Target> {
        if depth > 16 {
            return None;
        }
        let (name, rest) = path.split_first()?;
        let it = &self.modules[module];
        if let Some(child) = it.children.get(name) {
            return self.within(*child, rest, depth + 1);
        }
        if it.items.contains(name) {
            return Some(Target::Item(module));
        }
        // `use http;` says nothing new.
        let named = |it: &&Use| it.name.as_ref() == Some(name) && it.path[..] != [name.clone()];
        if let Some(found) = it.uses.iter().find(named) {
            return self.resolve(module, &[&found.path[..], rest].concat(), depth + 1);
        }
        it.uses.iter().filter(|it| it.name.is_none()).find_map(|glob| {
            match self.resolve(module, &glob.path, depth + 1)? {
                Target::Module(glob) if glob != module => self.lookup(glob, path, depth + 1),
                _ => None,
            }
        })
    }
}

/// Collects what items import and mention.
#[derive(Default)]
struct ReferenceReader {
    uses: Vec<Use>,
    references: Vec<Reference>,
}

impl ReferenceReader {
    fn flatten(&mut self, tree: &UseTree, before: &[String], re_export: bool) {
        let joined = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => self.flatten(&path.tree, &joined(&path.ident), re_export),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.flatten(tree, before, re_export));
            }
            UseTree::Glob(_) => self.uses.push(Use { path: before.to_vec(), name: None, line, re_export }),
            UseTree::Name(name) if name.ident == "self" => {
                self.uses.push(Use { path: before.to_vec(), name: before.last().cloned(), line, re_export });
            }
            UseTree::Name(name) => {
                let path = joined(&name.ident);
                self.uses.push(Use { path, name: Some(name.ident.to_string()), line, re_export });
            }
            UseTree::Rename(rename) => {
                let path = if rename.ident == "self" { before.to_vec() } else { joined(&rename.ident) };
                self.uses.push(Use { path, name: Some(rename.rename.to_string()), line, re_export });
            }
        }
    }

    /// The paths within a macro call or an attribute.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.reference(&mut path, line);
                        line = name.span().start().line;
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                token => {
                    self.reference(&mut path, line);
                    colons = 0;
                    if let TokenTree::Group(group) = token {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.reference(&mut path, line);
    }

    fn reference(&mut self, path: &mut Vec<String>, line: usize) {
        if !path.is_empty() {
            self.references.push(Reference { path: std::mem::take(path), line });
        }
    }
}

impl<'ast> Visit<'ast> for ReferenceReader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Const(it) => &it.attrs,
            syn::ImplItem::Fn(it) => &it.attrs,
            syn::ImplItem::Type(it) => &it.attrs,
            syn::ImplItem::Macro(it) => &it.attrs,
            _ => return,
        };
        if !only_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !only_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_field(&mut self, field: &'ast syn::Field) {
        if !only_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let re_export = !matches!(item.vis, Visibility::Inherited);
        if item.leading_colon.is_none() {
            self.flatten(&item.tree, &[], re_export);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let mut names = path.segments.iter().map(|it| it.ident.to_string()).collect();
            self.reference(&mut names, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        match &attribute.meta {
            Meta::List(list) => self.tokens(list.tokens.clone()),
            Meta::NameValue(value) => visit::visit_expr(self, &value.value),
            Meta::Path(_) => {}
        }
    }

    /// `pub(in crate::controller)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// Whether only a build of tests has it.
fn only_for_tests(attributes: &[Attribute]) -> bool {
    fn requires_test(meta: &Meta) -> bool {
        let members = |list: &syn::MetaList| {
            list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).unwrap_or_default()
        };
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => members(list).iter().any(requires_test),
            Meta::List(list) if list.path.is_ident("any") => members(list).iter().all(requires_test),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.parse_args::<Meta>().is_ok_and(|meta| requires_test(&meta))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::ExternCrate(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::ForeignMod(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::TraitAlias(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Union(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Macro(it) => it.ident.as_ref()?,
        Item::Static(it) => &it.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        Item::Union(it) => &it.ident,
        _ => return None,
    };
    Some(name.to_string())
}
