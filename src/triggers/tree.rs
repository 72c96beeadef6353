//! What is watched: files and directories, without what is left out there.

use super::WatchError;
use crate::config::triggers::{Ignored, Triggers};
use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// What is left out everywhere: hidden files, installed packages, and what interpreters and editors write beside a
/// file.
const IGNORED: [&str; 7] = [".*", "node_modules", "__pycache__", "*.pyc", "*~", "*.swp", "4913"];

/// The link by which Kubernetes replaces all files of a mounted ConfigMap or Secret at once (`atomic_writer.go`).
const VOLUME: &str = "..data";

/// The files and directories that are named, and which directories are watched for them.
pub struct Tree {
    roots: Vec<PathBuf>,
    ignore: Vec<Ignored>,
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
    /// Where named links lead.
    targets: HashSet<PathBuf>,
    /// Files of this process.
    own: Vec<PathBuf>,
}

impl Tree {
    /// Watches these.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn new(triggers: &Triggers, watcher: RecommendedWatcher) -> Result<Tree, WatchError> {
        let Triggers { watch: roots, ignore, own, .. } = triggers;
        let always = IGNORED.iter().filter_map(|pattern| Ignored::new(pattern).ok());
        let ignore = always.chain(ignore.iter().cloned()).collect();
        let (watched, targets) = (HashSet::new(), HashSet::new());
        let mut tree = Tree { roots: roots.clone(), ignore, watcher, watched, targets, own: own.clone() };
        for root in roots {
            root.metadata().map_err(|source| WatchError::NotThere { path: root.clone(), source })?;
            tree.watch_root(root)?;
        }
        Ok(tree)
    }

    /// Whether a change of this path counts: it is one of the named ones, or in one and not left out.
    #[must_use]
    pub fn counts(&self, path: &Path) -> bool {
        // What this process writes itself would never come to an end.
        if self.own.iter().any(|own| is_of(path, own)) {
            return false;
        }
        self.targets.contains(path)
            || self.roots.iter().any(|root| match path.strip_prefix(root) {
                Ok(inside) => inside == Path::new(VOLUME) || !self.ignore.iter().any(|ignored| ignored.fits(inside)),
                Err(_) => path == beside(root).join(VOLUME),
            })
    }

    /// Something has appeared here. If it is a directory, what is in it is watched, too.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn appeared(&mut self, path: &Path) -> Result<(), WatchError> {
        // What was there under this name is watched no longer: a link may lead elsewhere now.
        self.gone(path);
        match self.roots.iter().any(|root| root == path) {
            true => self.watch_root(path),
            false if path.is_dir() => self.watch_below(path),
            false => Ok(()),
        }
    }

    /// Something is gone from here, with all below it.
    pub fn gone(&mut self, path: &Path) {
        let watcher = &mut self.watcher;
        self.watched.retain(|watched| {
            let stays = !watched.starts_with(path);
            if !stays {
                // Where the directory is gone, so is the watch.
                let _ = watcher.unwatch(watched);
            }
            stays
        });
    }

    /// Looks at everything again, because changes were missed, or because a directory that was gone may be there
    /// again. Tells whether anything came.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn again(&mut self) -> Result<bool, WatchError> {
        let before = self.watched.len();
        for root in self.roots.clone() {
            if root.exists() {
                self.watch_root(&root)?;
            }
        }
        Ok(self.watched.len() > before)
    }

    /// Whether each named one is there, and watched.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.roots.iter().all(|root| root.exists() && self.watched.contains(&beside(root)))
    }

    /// A file is watched through its directory: editors put a new file in its place. So is a directory, which may be a
    /// link that is changed, or go and come again.
    fn watch_root(&mut self, root: &Path) -> Result<(), WatchError> {
        self.watch(&beside(root))?;
        if let Some(target) = root.canonicalize().ok().filter(|target| target != root && target.is_file()) {
            self.watch(&beside(&target))?;
            self.targets.insert(target);
        }
        if root.is_dir() { self.watch_below(root) } else { Ok(()) }
    }

    fn watch_below(&mut self, path: &Path) -> Result<(), WatchError> {
        let found: Vec<PathBuf> = {
            let counts = |path: &Path| self.counts(path);
            let walk = WalkDir::new(path).into_iter().filter_entry(|entry| counts(entry.path()));
            // What cannot be read is not watched, and what is gone meanwhile needs no watch.
            let directories = walk.flatten().filter(|entry| entry.path_is_symlink() || entry.file_type().is_dir());
            directories.map(walkdir::DirEntry::into_path).filter(|path| path.is_dir()).collect()
        };
        found.iter().try_for_each(|directory| self.watch(directory))
    }

    fn watch(&mut self, path: &Path) -> Result<(), WatchError> {
        if self.watched.contains(path) {
            return Ok(());
        }
        match self.watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(path.to_owned());
                Ok(())
            }
            Err(error) => match error.kind {
                ErrorKind::PathNotFound => Ok(()),
                ErrorKind::MaxFilesWatch => Err(WatchError::TooMany(path.to_owned())),
                _ => Err(WatchError::Other { path: path.to_owned(), what: error.to_string() }),
            },
        }
    }
}

/// Whether a path is this file, or one that was put aside under its name (`x.log.1`, `x.log.2.gz`).
fn is_of(path: &Path, own: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let rest = || name(path).strip_prefix(&name(own)).map(|rest| rest.is_empty() || rest.starts_with('.'));
    path.parent() == own.parent() && rest().unwrap_or(false)
}

/// The directory that has this one or this file in it.
fn beside(root: &Path) -> PathBuf {
    root.parent().unwrap_or(root).to_owned()
}
