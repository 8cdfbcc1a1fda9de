//! Trees of files out of the repository. Git itself lays them out: only files that differ are
//! written anew, so cargo builds again what has changed and nothing else.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// What the rows, the driver and this program are in.
const COMPARE: &str = "compare";

/// A commit, by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit(String);

impl Commit {
    pub(crate) fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

/// A tree of files, by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree(String);

pub(crate) struct Repository {
    root: PathBuf,
    git_dir: PathBuf,
}

impl Repository {
    /// The one that this program was built in.
    pub(crate) fn here() -> Result<Self, Error> {
        Self::at(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")))
    }

    fn at(root: &Path) -> Result<Self, Error> {
        let root = root.canonicalize().map_err(Error::file(root))?;
        let git_dir = run(git_in(&root), &["rev-parse", "--absolute-git-dir"])?;
        Ok(Self {
            root,
            git_dir: PathBuf::from(git_dir),
        })
    }

    /// Git over the files in `work_tree`, with an index of its own: the user's stays as it is.
    fn git(&self, work_tree: &Path, index: &Path, args: &[&str]) -> Result<String, Error> {
        let mut git = git_in(work_tree);
        git.env("GIT_DIR", &self.git_dir)
            .env("GIT_WORK_TREE", work_tree)
            .env("GIT_INDEX_FILE", index);
        run(git, args)
    }

    /// Git about what is stored.
    fn ask(&self, args: &[&str]) -> Result<String, Error> {
        run(git_in(&self.root), args)
    }

    /// The commit of this name.
    pub(crate) fn commit(&self, name: &str) -> Result<Commit, Error> {
        let object = format!("{name}^{{commit}}");
        match self.ask(&[
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            &object,
        ]) {
            Ok(hash) => Ok(Commit(hash)),
            Err(Error::Git { .. }) => Err(Error::NoCommit(name.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// The files as they lie there, committed or not.
    pub(crate) fn this_tree(&self, index: &Path) -> Result<Tree, Error> {
        let git = |args: &[&str]| self.git(&self.root, index, args);
        cleared(index)?;
        git(&["read-tree", "HEAD"])?;
        git(&["add", "--all"])?;
        git(&["write-tree"]).map(Tree)
    }

    /// The commit's files, but with the rows of `ours`: only the allocator differs.
    pub(crate) fn with_our_compare(
        &self,
        commit: &Commit,
        ours: &Tree,
        index: &Path,
    ) -> Result<Tree, Error> {
        let git = |args: &[&str]| self.git(&self.root, index, args);
        cleared(index)?;
        git(&["read-tree", &commit.0])?;
        git(&[
            "rm",
            "-r",
            "-f",
            "-q",
            "--cached",
            "--ignore-unmatch",
            "--",
            COMPARE,
        ])?;
        let rows = format!("{}:{COMPARE}", ours.0);
        git(&["read-tree", &format!("--prefix={COMPARE}/"), &rows])?;
        git(&["write-tree"]).map(Tree)
    }

    /// Makes the files in `folder` those of `tree`. `index` knows what lies there, from one call to
    /// the next.
    pub(crate) fn lay(&self, tree: &Tree, folder: &Path, index: &Path) -> Result<(), Error> {
        if !index.exists() && folder.exists() {
            // Nobody knows which of these files are to go.
            fs::remove_dir_all(folder).map_err(Error::file(folder))?;
        }
        fs::create_dir_all(folder).map_err(Error::file(folder))?;
        self.git(folder, index, &["read-tree", "--reset", "-u", &tree.0])?;
        Ok(())
    }

    /// Names the tree for people: the commit below it, and whether there is more.
    pub(crate) fn describe(&self, tree: &Tree) -> Result<String, Error> {
        let head = self.commit("HEAD")?;
        let is_clean = self.ask(&["rev-parse", "HEAD^{tree}"])? == tree.0;
        let changes = if is_clean { "" } else { " and changes" };
        Ok(format!("{}{changes}", head.short()))
    }
}

/// An index begins empty where there is no file.
fn cleared(index: &Path) -> Result<(), Error> {
    match fs::remove_file(index) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(index)(error)),
        _ => Ok(()),
    }
}

/// Git in this folder, whatever repository the caller was busy with.
fn git_in(folder: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(folder);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(variable);
    }
    git
}

/// What git prints.
fn run(mut git: Command, args: &[&str]) -> Result<String, Error> {
    let output = git.args(args).output().map_err(Error::NoGit)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned())
    } else {
        Err(Error::Git {
            command: args.join(" "),
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        repository: Repository,
        folder: tempfile::TempDir,
    }

    impl Fixture {
        /// A repository of one commit: an allocator, its rows, what is built.
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let root = folder.path().join("root");
            fs::create_dir(&root).expect("a folder");
            run(git_in(&root), &["init", "-q"]).expect("a repository");
            let fixture = Self {
                repository: Repository::at(&root).expect("a repository"),
                folder,
            };
            fixture.write("src/lib.rs", "old");
            fixture.write("src/gone.rs", "old");
            fixture.write("compare/rows.rs", "old");
            fixture.write(".gitignore", "target/");
            fixture.write("target/binary", "old");
            fixture.commit_all();
            fixture
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.repository.root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }

        fn commit_all(&self) {
            self.repository.ask(&["add", "--all"]).expect("added");
            let author = ["-c", "user.name=T", "-c", "user.email=t@localhost"];
            let commit = ["commit", "-q", "-m", "all"];
            let words = [&author[..], &commit[..]].concat();
            self.repository.ask(&words).expect("a commit");
        }

        fn index(&self) -> PathBuf {
            self.folder.path().join("scratch")
        }

        fn this_tree(&self) -> Tree {
            self.repository.this_tree(&self.index()).expect("a tree")
        }

        fn laid(&self, tree: &Tree) {
            let (folder, index) = (
                self.folder.path().join("laid"),
                self.folder.path().join("index"),
            );
            self.repository
                .lay(tree, &folder, &index)
                .expect("laid out");
        }

        /// The text of a file that was laid out.
        fn read(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.folder.path().join("laid").join(path)).ok()
        }
    }

    #[test]
    fn this_tree_is_what_lies_there_and_nothing_built() {
        let fixture = Fixture::new();
        let committed = fixture.this_tree();
        let plain = fixture.repository.describe(&committed).expect("a name");
        fixture.write("src/lib.rs", "changed");
        fixture.write("src/new.rs", "new");
        fs::remove_file(fixture.repository.root.join("src/gone.rs")).expect("removed");

        let tree = fixture.this_tree();
        fixture.laid(&tree);
        assert_eq!(fixture.read("src/lib.rs").as_deref(), Some("changed"));
        assert_eq!(fixture.read("src/new.rs").as_deref(), Some("new"));
        assert_eq!(fixture.read("src/gone.rs"), None);
        assert_eq!(fixture.read("target/binary"), None);
        let name = fixture.repository.describe(&tree).expect("a name");
        assert_eq!(name, format!("{plain} and changes"));
        // The user's own index saw nothing of it.
        let staged = fixture.repository.ask(&["diff", "--cached", "--name-only"]);
        assert_eq!(staged.expect("a list"), "");
    }

    #[test]
    fn another_commit_gets_our_rows_and_keeps_its_allocator() {
        let fixture = Fixture::new();
        let old = fixture.repository.commit("HEAD").expect("a commit");
        fixture.write("src/lib.rs", "changed");
        fixture.write("src/new.rs", "new");
        fixture.write("compare/rows.rs", "changed");
        fixture.write("compare/new.rs", "new");
        let ours = fixture.this_tree();
        let index = fixture.index();
        let tree = fixture.repository.with_our_compare(&old, &ours, &index);

        fixture.laid(&ours);
        fixture.laid(&tree.expect("a tree"));
        assert_eq!(fixture.read("src/lib.rs").as_deref(), Some("old"));
        assert_eq!(fixture.read("src/new.rs"), None);
        assert_eq!(fixture.read("compare/rows.rs").as_deref(), Some("changed"));
        assert_eq!(fixture.read("compare/new.rs").as_deref(), Some("new"));
    }

    #[test]
    fn what_an_index_no_longer_knows_is_gone() {
        let fixture = Fixture::new();
        let tree = fixture.this_tree();
        fixture.laid(&tree);
        let laid = fixture.folder.path().join("laid");
        fs::write(laid.join("src/stray.rs"), "old").expect("a file");
        fs::remove_file(fixture.folder.path().join("index")).expect("removed");
        fixture.laid(&tree);
        assert_eq!(fixture.read("src/stray.rs"), None);
        assert_eq!(fixture.read("src/lib.rs").as_deref(), Some("old"));
    }

    #[test]
    fn the_same_commit_with_our_rows_is_our_tree() {
        let fixture = Fixture::new();
        let head = fixture.repository.commit("HEAD").expect("a commit");
        let ours = fixture.this_tree();
        let index = fixture.index();
        let tree = fixture.repository.with_our_compare(&head, &ours, &index);
        assert_eq!(tree.expect("a tree"), ours);
    }

    #[test]
    fn a_commit_that_does_not_exist_is_named() {
        let fixture = Fixture::new();
        for name in ["no-such-branch", "0123456789", "--help"] {
            let error = fixture.repository.commit(name).expect_err("no commit");
            assert!(
                matches!(error, Error::NoCommit(ref said) if said == name),
                "{error}"
            );
        }
    }
}
